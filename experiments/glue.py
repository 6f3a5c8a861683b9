"""GLUE's nine tasks: what half of a small encoder's layers keep.

    python run.py --config experiments/glue.py:rte                    # MiniLM-L6, 2 CPU cores
    python run.py --config experiments/glue.py:cola --config.seeds="(0,1,2)"
    python run.py --config experiments/glue.py:mrpc --config.teacher=google-bert/bert-base-uncased
    python run.py --config experiments/glue.py:stsb --config.sweep=True   # rates and batch sizes
    python run.py --config experiments/glue.py:smoke                  # about a minute, embedded
    python -m jaxkd.report.collection runs/glue-*/results.json --folder results/glue-minilm

Variants: cola, mnli, mrpc, qnli, qqp, rte, sst2, stsb, wnli. An encoder is fine-tuned; a student of
half its layers is distilled from it (soft targets, hidden states, labels), and learns the labels
alone. Metrics are GLUE's: MCC for CoLA; F1 and accuracy for MRPC and QQP; Pearson and Spearman for
STS-B; accuracy for the others, MNLI's on both validation sets. Predictions are written in GLUE's
submission format, those of the unlabelled test set too where its file is there.

Files are sought in $JAXKD_DATA/glue/NAME (GLUE's own TSV files), then on the hub (nyu-mll/glue).
Where a folder has no training file, the labelled file it has is divided, and every table says so.
"""

import dataclasses

from configs import models
from configs.data import ONE_WIDTH
from configs.glue import EPOCHS, LONG
from configs.own_data import MINILM, OwnData, smoke_training, training
from jaxkd.core.names import did_you_mean
from jaxkd.core.ranges import field
from jaxkd.data.corpora.glue import TASKS
from jaxkd.data.rows.labelled import Labelled
from jaxkd.distil.terms import HardLabels, HiddenStates, SoftTargets, SquaredError
from jaxkd.runs.experiment import Comparison, Curve, Reference, Report
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.load import Load
from jaxkd.stages.student import Prune
from jaxkd.stages.sweep import Sweep
from jaxkd.stages.train import Train
from jaxkd.tasks.glue import METRICS, glue

HEAD = "sequence_classification"
LABELS = {
    "teacher": "teacher, fine-tuned",
    "student_init": "half of its layers, before",
    "student": "half of its layers, distilled",
    "alone": "the same student, without a teacher",
}
# MiniLM-L6-H384 (22M parameters) of Wang et al. (2020), arXiv:2002.10957, table 2.
ORIGINAL = {"mnli": 0.828, "qnli": 0.903, "qqp": 0.906, "rte": 0.689, "sst2": 0.913, "mrpc": 0.866}


@dataclasses.dataclass
class Glue(OwnData):
    """One of GLUE's tasks."""

    layers: int = field(0, at_least=0)  # blocks of the teacher that the student keeps; 0: half
    sweep: bool = False  # try several learning rates and batch sizes of every training

    def resolve(self) -> None:
        loaded = self.stages["loaded"]
        if isinstance(loaded, Load):
            loaded.name = loaded.name or self.teacher
            self.data.tokenizer = self.data.tokenizer or loaded.name
        student = self.stages["student_init"]
        rule = f"evenly {self.layers}" if self.layers else "every_other"
        student.keep = student.keep or rule
        if self.sweep:
            self.stages |= {
                name: Sweep(train=stage)
                for name, stage in self.stages.items()
                if isinstance(stage, Train)
            }


def get_config(variant: str = "rte") -> Glue:
    """One task by its name in lower case, or smoke: embedded sentences of two kinds."""
    if variant not in (*TASKS, "smoke"):
        raise ValueError(f"no variant {variant!r} of glue. {did_you_mean(variant, TASKS)}")
    smoke = variant == "smoke"
    task = TASKS["mrpc" if smoke else variant]
    if smoke:
        shape = dataclasses.replace(models.bert("tiny"), head=HEAD)
        first = {"loaded": Initialise(model=shape)}
        data = Labelled(
            corpus="mrpc", origin="embedded", tokenizer="trained", trained_size=1024, rows=512,
            **ONE_WIDTH,
        )  # fmt: skip
        teacher = student = smoke_training()
        frozen: tuple[str, ...] = ()
    else:
        first = {"loaded": Load(head=HEAD, compute="bfloat16")}
        data = Labelled(corpus=variant, tokenizer="", length=128 if variant in LONG else 64)
        epochs = EPOCHS[variant]
        teacher = training(1e-4, epochs[0], 32)
        student = training(1.5e-4, epochs[1], 32)
        frozen = ("embed/token",)
    if task.labels:
        terms: dict[str, object] = {
            "soft_targets": SoftTargets(weight=1.0, temperature=2.0),
            "hidden": HiddenStates(weight=1.0, layer_map="uniform"),
            "cross_entropy": HardLabels(weight=0.5),
        }
    else:
        terms = {
            "teacher_score": SquaredError(target="teacher"),
            "hidden": HiddenStates(weight=1.0, layer_map="uniform"),
            "squared_error": SquaredError(weight=0.5),
        }
    stages = first | {
        "teacher": Train(source="loaded", freeze=frozen, **teacher),
        "student_init": Prune(source="loaded", keep=""),
        "student": Train(
            source="student_init", teacher="teacher", terms=terms, freeze=frozen, **student
        ),
        "alone": Train(source="student_init", freeze=frozen, **student),
        "evaluate": Evaluate(models=tuple(LABELS), splits=(), batch_size=64, predictions=True),
    }
    metric = METRICS[task.name][0].name
    return Glue(
        title=f"GLUE {task.name}: what half of an encoder's layers keep",
        data=data,
        stages=stages,
        task=glue(task.name, task.labels),
        teacher=MINILM,
        report=Report(
            labels=dict(LABELS),
            curves=(Curve(f"{metric} over steps", ("student", "alone"), "validation", metric),),
            comparisons=tuple(
                Comparison(f"distilled against {what}", "student", other, metric=metric)
                for other, what in (("alone", "labels alone"), ("teacher", "its teacher"))
            ),
            references=tuple(
                Reference(f"MiniLM-L6-H384, {name}", value, "teacher", metric="accuracy")
                for name, value in ORIGINAL.items()
                if name == variant
            ),
            reference_source="Wang et al. (2020), MiniLM, 22M parameters, fine-tuned on all rows",
        ),
    )
