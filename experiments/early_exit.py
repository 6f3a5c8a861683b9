"""Early exit on GLUE: what score costs how many milliseconds, under which rule.

    python run.py --config experiments/early_exit.py:mini-mrpc              # MiniLM-L6, 6 exits
    python run.py --config experiments/early_exit.py:bert-rte               # or distilbert, albert
    python run.py --config experiments/early_exit.py:mini --config.data.train=reviews.csv
    python run.py --config experiments/early_exit.py:smoke                  # embedded, minutes

results/README.md has `mini` on all eight tasks, with 1,600 to 4,000 rows (--config.data.rows): 40
to 100 minutes a task and seed on one core of an AMD EPYC, with other work on the other core.

Variants: a backbone (mini, distilbert, albert, bert; by hub id, or --config.teacher=FOLDER) and a
task (cola, mnli, mrpc, qnli, qqp, rte, sst2, stsb); without a task your own table is read, as in
experiments/classify.py. The backbone is fine-tuned: its score and its time are what early exit is
compared with. (A backbone that has seen the task's training rows before would look surer on the
rows held out here than elsewhere.) Then a copy of its head is added after each block, which reads
the mean of all tokens, and all learn jointly, weighted by depth (PABEE), from the labels and from
the fine-tuned backbone. A tenth of the
training rows is held out to calibrate optimal stopping and to choose thresholds. Two students
pruned from the backbone and distilled as long are the rivals: another way to the same speed.

Every rule runs over its thresholds, at batch size 1 and 32, in wall-clock time of this machine.
Sources: Zhou et al. (2020), arXiv:2006.04152 (PABEE), and those of jaxkd/exits/rules.py.
"""

import dataclasses
from typing import Any

from configs import models
from configs.data import ONE_WIDTH
from configs.glue import EPOCHS, LONG
from configs.own_data import MINILM, smoke_training, training
from jaxkd.core.names import did_you_mean
from jaxkd.core.ranges import field
from jaxkd.data.corpora.glue import TASKS
from jaxkd.data.rows.labelled import Labelled
from jaxkd.distil.terms import AtExits, HardLabels, SoftTargets, SquaredError
from jaxkd.runs.experiment import Curve, Experiment, Reference, Report
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.evaluate_exits import EvaluateExits
from jaxkd.stages.exits import AddExits, Calibrate
from jaxkd.stages.export import Export, with_bundles
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.load import Load
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train
from jaxkd.tasks.glue import glue

HEAD = "sequence_classification"
BACKBONES = {
    "mini": MINILM,
    "distilbert": "distilbert/distilbert-base-uncased",
    "albert": "albert/albert-base-v2",
    "bert": "google-bert/bert-base-uncased",
}
EIGHT = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb")
STUDENTS = ("student_long", "student_short")
LABELS = {
    "full": "the whole model, without exits",
    "exits": "the model with exits, its head",
    "student_long": "student of {}, distilled",
    "student_short": "student of {}, distilled",
}
# ALBERT-base under PABEE on development sets.
PABEE = {"cola": ("mcc", 0.612), "mnli": ("accuracy", 0.851), "sst2": ("accuracy", 0.930)}


@dataclasses.dataclass
class EarlyExit(Experiment):
    """A backbone, the same with exits, and shorter students of it."""

    teacher: str = ""  # the backbone: HuggingFace folder, hub id, or the folder of a stage of ours
    # Blocks of the two students without exits: another way to the same speed.
    rivals: tuple[int, int] = field((4, 3), at_least=1)

    def resolve(self) -> None:
        loaded = self.stages["loaded"]
        if isinstance(loaded, Load):
            loaded.name = loaded.name or self.teacher
            self.data.tokenizer = self.data.tokenizer or loaded.name
        for name, blocks in zip(STUDENTS, self.rivals, strict=True):
            pruned = self.stages[f"{name}_init"]
            pruned.keep = pruned.keep or f"evenly {blocks}"
            count = "1 block" if blocks == 1 else f"{blocks} blocks"
            self.report.labels[name] = self.report.labels[name].format(count)
        if not self.data.train and self.data.corpus in TASKS:
            task = TASKS[self.data.corpus]
            self.task = self.task or glue(task.name, task.labels)
        if self.data.regression if self.data.train else self.data.corpus == "stsb":
            _to_regression(self.stages)
        if not self.title:
            name = TASKS[self.data.corpus].name if self.task else self.data.train
            self.title = f"Early exit: {name}"


def get_config(variant: str = "mini") -> EarlyExit:
    """A backbone and a task ("mini-mrpc"), a backbone alone for your own data, or smoke."""
    backbone, _, corpus = variant.partition("-")
    if backbone not in (*BACKBONES, "smoke"):
        known = did_you_mean(backbone, (*BACKBONES, "smoke"))
        raise ValueError(f"no variant {variant!r} of early_exit. {known}")
    if corpus and corpus not in EIGHT:
        raise ValueError(f"early_exit.py:{variant}: {did_you_mean(corpus, EIGHT)}")
    smoke = backbone == "smoke"
    if smoke:
        shape = dataclasses.replace(models.bert("tiny"), layers=3, head=HEAD)
        first: dict[str, Any] = {"loaded": Initialise(model=shape)}
        data = Labelled(
            corpus=corpus or "mrpc", origin="embedded", tokenizer="trained", trained_size=1024,
            rows=512, calibration=20, **ONE_WIDTH,
        )  # fmt: skip
        full = student = smoke_training()
        frozen: tuple[str, ...] = ()
        calibration: dict[str, Any] = dict(bins=2, timed_rows=8, rounds=1)
        timing: dict[str, Any] = dict(
            timed_rows=8, rounds=1, batch_sizes=(1, 4), entropy=(0.3,), confidence=(0.8,),
            confident_patience=(0.8,), distance=(0.1,), prices=(0.0, 0.1),
        )  # fmt: skip
    else:
        first = {"loaded": Load(head=HEAD)}
        length = 64 if corpus and corpus not in LONG else 128
        # Few widths: each is compiled for every rule and size of a batch.
        data = Labelled(corpus=corpus, tokenizer="", length=length, shortest=32, calibration=10)
        epochs = EPOCHS.get(corpus, (4, 6))
        full, student = training(1e-4, epochs[0], 32), training(1e-4, epochs[1], 32)
        frozen = ("embed/token",)
        calibration, timing = {}, {}
    settings = dict(freeze=frozen, teacher="full", **student)
    stages = first | {
        "full": Train(source="loaded", freeze=frozen, **full),
        # What one token knows after a block or two is little; the mean of all is more.
        "exits_init": AddExits(source="full", reads="mean"),
        "exits": Train(source="exits_init", terms=exit_terms(), **settings),
        "student_long_init": Prune(source="full", keep=""),
        "student_long": Train(source="student_long_init", terms=terms(), **settings),
        "student_short_init": Prune(source="full", keep=""),
        "student_short": Train(source="student_short_init", terms=terms(), **settings),
        "calibrate": Calibrate(source="exits", **calibration),
        "early_exit": EvaluateExits(
            model="exits",
            calibration="calibrate",
            full="full",
            rivals=STUDENTS,
            **timing,
        ),
        "evaluate": Evaluate(models=tuple(LABELS), batch_size=32),
        "export": Export(model="exits", formats=with_bundles(), calibration="calibrate"),
    }
    return EarlyExit(
        title="",
        data=data,
        stages=stages,
        teacher="" if smoke else BACKBONES[backbone],
        rivals=(2, 1) if smoke else (8, 6) if backbone in ("albert", "bert") else (4, 3),
        report=Report(
            labels=dict(LABELS),
            curves=(
                Curve("Loss over steps", ("exits", "student_long", "student_short"), "validation"),
            ),
            references=tuple(
                Reference(
                    f"PABEE, ALBERT-base, {name}; ours: the head", value, "exits", metric=name
                )
                for key, (name, value) in PABEE.items()
                if key == corpus
            ),
            reference_source="Zhou et al. (2020), development sets, patience 6, 1.57 times as fast",
        ),
    )


def exit_terms() -> dict[str, Any]:
    """What all exits learn, the head among them: labels, and what the whole model predicts."""
    return {
        "labels": AtExits(term=HardLabels()),
        "soft_targets": AtExits(term=SoftTargets(temperature=2.0)),
    }


def terms() -> dict[str, Any]:
    """The same for a student without exits."""
    return {"labels": HardLabels(), "soft_targets": SoftTargets(temperature=2.0)}


REGRESSION = {"labels": SquaredError(), "soft_targets": SquaredError(target="teacher")}


def _to_regression(stages: dict[str, Any]) -> None:
    """Terms of numbers instead of those of classes, where no flag changed them."""
    for stage, default in (
        ("exits", exit_terms()),
        ("student_long", terms()),
        ("student_short", terms()),
    ):
        current = stages[stage].terms
        for name, term in current.items():
            if term == default.get(name):
                number = dataclasses.replace(REGRESSION[name])
                current[name] = AtExits(term=number) if isinstance(term, AtExits) else number
