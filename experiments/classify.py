"""Your own labelled texts: a small classifier from a large one.

    python run.py --config experiments/classify.py --config.data.train=reviews.csv
    python run.py --config experiments/classify.py --config.data.train=reviews.csv \
        --config.data.validation=more.csv --config.data.text=review --config.data.label=stars \
        --config.teacher=FOLDER_OR_HUB_ID --config.layers=3
    python run.py --config experiments/classify.py:smoke     # about a minute, embedded text

The table is CSV, TSV, JSONL (each also .gz), Parquet, a folder that a TFDS builder prepared, or a
hub id. `data.text` names one column or two ("premise,hypothesis"), `data.label` that of the labels:
words or integers; with `data.regression=True` numbers. Without a validation file a tenth of each
class is held out.

The teacher is a HuggingFace folder, a hub id or the folder of a stage of ours, of any encoder
family. If it already predicts these labels (compared by name) it is used as it is; an encoder
without a classifier is fine-tuned first. A classifier of other labels is refused, unless it gets
one for yours (`--config.stages.loaded.new_classifier=True`), which is then trained.

The student keeps `layers` of its blocks and learns from it; the same student learns without it. The
student is written as a HuggingFace folder and an ONNX file, both opened again and compared; rows
that the student gets wrong and its teacher right are in the report.

    python -m jaxkd.predict runs/classify-mini/0/export/huggingface --text "so good"
"""

import dataclasses
from typing import Any

from configs import models
from configs.data import ONE_WIDTH
from configs.own_data import MINILM, OwnData, smoke_training, training
from jaxkd.core.names import did_you_mean
from jaxkd.data.rows.labelled import Labelled
from jaxkd.distil.terms import HardLabels, HiddenStates, SoftTargets, SquaredError
from jaxkd.runs.experiment import Comparison, Curve, Report
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.export import Export, with_bundles
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.load import Load
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train

VARIANTS = ("mini", "smoke")
HEAD = "sequence_classification"
LABELS = {
    "teacher": "teacher",
    "student_init": "student, before",
    "student": "student, distilled",
    "alone": "the same student, without a teacher",
}


# What replaces a term of classes where numbers are to be predicted.
REGRESSION_TERMS = {
    "soft_targets": ("teacher_score", SquaredError(target="teacher")),
    "cross_entropy": ("squared_error", SquaredError(weight=0.5)),
}


def class_terms() -> dict[str, Any]:
    """The terms of a student that learns classes from its teacher."""
    return {
        "soft_targets": SoftTargets(weight=1.0, temperature=2.0),
        "hidden": HiddenStates(weight=1.0, layer_map="uniform"),
        "cross_entropy": HardLabels(weight=0.5),
    }


@dataclasses.dataclass
class Classify(OwnData):
    """Labelled texts, or pairs of them."""

    def resolve(self) -> None:
        super().resolve()
        if self.data.regression:
            # Terms that a flag changed stay, and are refused where numbers are to be predicted.
            current, defaults = self.stages["student"].terms, class_terms()
            self.stages["student"].terms = dict(
                REGRESSION_TERMS.get(name, (name, term)) if term == defaults.get(name)
                else (name, term) for name, term in current.items()
            )  # fmt: skip
            self.report.curves = tuple(
                dataclasses.replace(curve, title="Pearson correlation over steps", metric="pearson")
                if curve.metric == "accuracy"
                else curve
                for curve in self.report.curves
            )
            self.report.comparisons = tuple(
                dataclasses.replace(each, metric="pearson") if each.metric == "accuracy" else each
                for each in self.report.comparisons
            )


def get_config(variant: str = "mini") -> Classify:
    """mini: your own data; smoke: embedded sentences of two kinds."""
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r} of classify. {did_you_mean(variant, VARIANTS)}")
    smoke = variant == "smoke"
    if smoke:
        shape = dataclasses.replace(models.bert("tiny"), head=HEAD)
        first = {"loaded": Initialise(model=shape)}
        frozen: tuple[str, ...] = ()
        data = Labelled(
            origin="embedded", tokenizer="trained", trained_size=1024, rows=512, **ONE_WIDTH
        )
        teacher = student = smoke_training()
    else:
        first = {"loaded": Load(head=HEAD, compute="bfloat16")}
        # Pretrained token vectors stay as they are: rare words keep what the teacher knew of them.
        frozen = ("embed/token",)
        data = Labelled(tokenizer="", length=128)
        teacher, student = training(1e-4, 4, 32), training(1.5e-4, 8, 32)
    stages = first | {
        "teacher": Train(source="loaded", train_if="new_head", freeze=frozen, **teacher),
        "student_init": Prune(source="teacher", keep=""),
        "student": Train(
            source="student_init", teacher="teacher", terms=class_terms(), freeze=frozen, **student
        ),
        "alone": Train(source="student_init", freeze=frozen, **student),
        "evaluate": Evaluate(models=tuple(LABELS), splits=(), batch_size=64, predictions=True),
        "export": Export(model="student", formats=with_bundles()),
    }
    return Classify(
        title="",
        data=data,
        stages=stages,
        teacher=MINILM,
        layers=1 if smoke else 3,
        report=Report(
            labels=dict(LABELS),
            curves=(Curve("Accuracy over steps", ("student", "alone"), "validation", "accuracy"),),
            comparisons=tuple(
                Comparison(f"distilled against {what}", "student", other, metric="accuracy")
                for other, what in (("alone", "without a teacher"), ("teacher", "its teacher"))
            ),
        ),
    )
