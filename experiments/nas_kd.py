"""Architecture search: a student's shape is found by short distillations, timed, and then taught.

    python run.py --config experiments/nas_kd.py                    # MiniLM-L6 on WikiText-2
    python run.py --config experiments/nas_kd.py --config.stages.search.optimizer=controller
    python run.py --config experiments/nas_kd.py:bert               # or roberta, albert
    python run.py --config experiments/nas_kd.py:mini --config.teacher=FOLDER
    python run.py --config experiments/nas_kd.py:table              # the optimizers, compared
    python run.py --config experiments/nas_kd.py:smoke              # about a minute, embedded text
    python run.py --config experiments/nas_kd.py:glue-rte --config.run=runs/nas_kd-mini/0

The space has the teacher's number of blocks, width, heads and feed-forward channels, and less. Each
candidate is cut from the teacher in order of importance (or drawn:
--config.stages.search.start=random) and learns its hidden states for a short time on 30% of the
rows; candidates that fall behind are stopped. The reward weighs the loss and the time. The best
shape and the student that one would choose by hand (half of the blocks, in half of the time) then
learn on all rows, equally long. No candidate may take more time than the hand-chosen student:
--config.stages.search.max_time.

table measures all 120 candidates of a small space to the end, so that the best is known, and runs
every optimizer on the measured rewards: how soon does it find the best, and how far is it before?

glue-TASK, one of cola, mnli, mrpc, qnli, qqp, rte, sst2, stsb and wnli, fine-tunes what a run left:
the teacher, the student that was found, and the hand-chosen one. Each seed of the search is a run
of its own (--config.run=runs/nas_kd-mini/1 --config.seeds='(1,)'); they become one row by
    python -m jaxkd.report.collection runs/nas_kd-glue-*/results.json --folder results/nas_kd-glue

Original: Trivedi et al. (2023), arXiv:2303.09639. docs/search.md says what the reward rewards.
"""

import dataclasses
from typing import Any

from configs import data, models
from configs.glue import EPOCHS, LONG
from configs.own_data import MINILM, smoke_training, training
from jaxkd.core.names import did_you_mean
from jaxkd.data.corpora.glue import TASKS
from jaxkd.data.rows.labelled import Labelled
from jaxkd.data.rows.text import MaskedText
from jaxkd.distil.terms import HiddenStates
from jaxkd.export.bundle.format import Bundle
from jaxkd.export.formats import HuggingFace
from jaxkd.runs.experiment import Comparison, Curve, Experiment, Report
from jaxkd.search.latency import Latency
from jaxkd.stages.compare_optimizers import CompareOptimizers
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.export import Export
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.load import Load
from jaxkd.stages.search import Search
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train
from jaxkd.tasks.glue import METRICS, glue
from jaxkd.train.optimiser import AdamW

TEACHERS = {
    "mini": MINILM,
    "bert": "google-bert/bert-base-uncased",
    "roberta": "FacebookAI/roberta-base",
    "albert": "albert/albert-base-v2",
}
LABELS = {
    "teacher": "teacher",
    "found": "student, found",
    "by_hand": "student, by hand",
}
HEAD = "sequence_classification"


@dataclasses.dataclass
class NasKd(Experiment):
    """A teacher, the search, and two students."""

    teacher: str = ""  # HuggingFace folder, hub id, or the folder of a stage of ours

    def resolve(self) -> None:
        loaded = self.stages["teacher"]
        if isinstance(loaded, Load):
            loaded.name = loaded.name or self.teacher
            self.data.tokenizer = self.data.tokenizer or loaded.name
        if not self.title:
            self.title = "Architecture search: the student is found"


@dataclasses.dataclass
class Glue(Experiment):
    """What a run left, fine-tuned on one task."""

    run: str = ""  # folder of one seed of a run: runs/nas_kd-mini/0
    teacher: str = MINILM  # of that run

    def resolve(self) -> None:
        if not self.run:
            raise ValueError(
                "run is empty. First run experiments/nas_kd.py, then give the folder of one of its "
                "seeds: --config.run=runs/nas_kd-mini/0"
            )
        exports = {"found": "export", "by_hand": "export_by_hand"}
        for name in LABELS:
            loaded = self.stages[f"{name}_loaded"]
            loaded.name = f"{self.run}/{exports[name]}/huggingface" if name in exports else ""
            loaded.name = loaded.name or self.teacher
        self.data.tokenizer = self.data.tokenizer or self.teacher


def get_config(variant: str = "mini") -> Experiment:
    """A teacher by name, table, smoke, or glue-TASK."""
    if variant.startswith("glue"):
        return _glue(variant)
    if variant == "table":
        return _table()
    if variant not in (*TEACHERS, "smoke"):
        known = (*TEACHERS, "table", "smoke", *(f"glue-{task}" for task in TASKS))
        raise ValueError(f"no variant {variant!r} of nas_kd. {did_you_mean(variant, known)}")
    smoke = variant == "smoke"
    terms = {"hidden": HiddenStates(layer_map="both", solve=True)}
    search: dict[str, Any] = dict(
        candidates=32, max_time=0.55, latency=Latency(head=HEAD, length=64, fitted_on=16),
        optimiser=AdamW(learning_rate=5e-4),
    )  # fmt: skip
    settings = training(3e-4, 1, 32, evaluate_every=0)
    if smoke:
        shape = dataclasses.replace(models.bert("tiny"), layers=4)
        teacher: Any = Initialise(model=shape)
        rows = MaskedText(
            origin="embedded", tokenizer="trained", trained_size=1024, length=32, rows=512
        )
        search |= dict(
            candidates=5, max_time=0.0, epochs=0.5, batch_size=16, validation_rows=32,
            latency=Latency(head=HEAD, length=16, rounds=3), halving=2,
        )  # fmt: skip
        settings = smoke_training()
    else:
        teacher = Load(head="masked_lm", compute="bfloat16")
        rows = data.wikitext2(length=64)
        rows.tokenizer = ""
    stages = {
        "teacher": teacher,
        "search": Search(teacher="teacher", **search),
        "found": Train(source="search", teacher="teacher", terms=terms, **settings),
        "by_hand_init": Prune(source="teacher", keep="every_other"),
        "by_hand": Train(source="by_hand_init", teacher="teacher", terms=terms, **settings),
        "export": Export(model="found", formats={"huggingface": HuggingFace(), "bundle": Bundle()}),
        "export_by_hand": Export(model="by_hand", formats={"huggingface": HuggingFace()}),
    }
    return NasKd(
        title="",
        data=rows,
        stages=stages,
        teacher="" if smoke else TEACHERS[variant],
        report=Report(
            labels=dict(LABELS),
            curves=(Curve("Loss of hidden states over steps", ("found", "by_hand")),),
        ),
    )


def _table() -> NasKd:
    rows = data.wikitext2(length=64)
    rows.tokenizer, rows.rows = "", 1600
    small = dict(
        layers=(1, 2, 3, 4, 5, 6), width=(192, 256, 320, 384), heads=(6, 8, 10, 12),
        feed_forward=(256, 512, 768, 1152, 1536), activation=("gelu",),
    )  # fmt: skip
    search = Search(
        teacher="teacher", candidates=120, optimizer="random", halving=0, epochs=1.0,
        latency=Latency(head=HEAD, length=64), optimiser=AdamW(learning_rate=5e-4), **small,
    )  # fmt: skip
    stages = {
        "teacher": Load(head="masked_lm", compute="bfloat16"),
        "search": search,
        "all": CompareOptimizers(search="search"),
        "fast": CompareOptimizers(search="search", max_time=0.55),
    }
    return NasKd(
        title="Architecture search: which optimizer finds the best soonest",
        data=rows,
        stages=stages,
        teacher=TEACHERS["mini"],
    )


def _glue(variant: str) -> Glue:
    task = variant.removeprefix("glue").removeprefix("-")
    if task not in TASKS:
        raise ValueError(f"nas_kd.py:{variant}: {did_you_mean(task, TASKS)}")
    frozen = ("embed/token",)
    settings = training(1e-4, EPOCHS[task][0], 32, freeze=frozen)
    stages: dict[str, Any] = {}
    for name in LABELS:
        stages[f"{name}_loaded"] = Load(head=HEAD, compute="bfloat16")
        stages[name] = Train(source=f"{name}_loaded", **settings)
    stages["evaluate"] = Evaluate(models=tuple(LABELS), splits=(), batch_size=64, predictions=True)
    metric = METRICS[TASKS[task].name][0].name
    return Glue(
        title=f"GLUE {TASKS[task].name}: a student that was found, and one by hand",
        data=Labelled(corpus=task, tokenizer="", length=128 if task in LONG else 64),
        stages=stages,
        task=glue(TASKS[task].name, TASKS[task].labels),
        report=Report(
            labels=dict(LABELS),
            comparisons=(
                Comparison("found against by hand", "found", "by_hand", metric=metric),
                Comparison("found against the teacher", "found", "teacher", metric=metric),
            ),
        ),
    )
