"""Sentiment: what a student of at most 14.4M parameters keeps of a teacher fine-tuned on SST-2.

    python run.py --config experiments/sst2.py          # mini: all-MiniLM-L6-v2, 2 CPU cores
    python run.py --config experiments/sst2.py:base     # bert-base-uncased, one accelerator
    python run.py --config experiments/sst2.py:smoke    # about a minute, a stand-in of two classes
    python run.py --config experiments/sst2.py --config.stages.loaded.name=FOLDER

The vocabulary of a pretrained encoder is trimmed to the tokens SST-2 uses (exact for texts of these
tokens), and the encoder is fine-tuned as the teacher. Some of its pretrained layers become the
student, which is distilled with soft targets, hidden states and labels; fine-tuned without the
teacher from the same start; and trained from random weights. Batches have sentences of similar
length.

results/sst2-mini has the results of mini, with three seeds. base was never run whole: its settings
are a first guess, and no result is claimed.

Original: efficient knowledge distillation (COMS 6998), BERT on SST-2: teacher of 67M parameters
0.911; student of 14.4M 0.463 before and 0.893 after distillation.
"""

import dataclasses

from configs import data, models
from jaxkd.core.names import did_you_mean
from jaxkd.distil.terms import HardLabels, HiddenStates, SoftTargets
from jaxkd.runs.experiment import Comparison, Curve, Experiment, Reference, Report
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.export import Export, with_bundles
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.load import Load
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train
from jaxkd.train.optimiser import AdamW


@dataclasses.dataclass
class Size:
    """What a variant is made of."""

    source: str  # pretrained weights; empty: random ones of the size "tiny"
    keep: str  # blocks of the student
    layers: int  # the same number, for the student from random weights
    teacher: dict[str, object]
    student: dict[str, object]
    freeze: tuple[str, ...] = ()  # of what is pretrained


VARIANTS = {
    "smoke": Size(
        source="",
        keep="0",
        layers=1,
        teacher=dict(steps=20, batch_size=8, log_every=5, evaluate_rows=64),
        student=dict(steps=20, batch_size=8, log_every=5, evaluate_rows=64),
    ),
    "mini": Size(
        source="sentence-transformers/all-MiniLM-L6-v2",
        keep="0,1,2,4,5",
        layers=5,
        freeze=("embed/token", "embed/position"),
        teacher=dict(
            steps=2100, batch_size=64, save_every=300, evaluate_every=300, evaluate_rows=0,
            optimiser=AdamW(learning_rate=1e-4),
        ),
        student=dict(
            steps=2600, batch_size=64, save_every=325, evaluate_every=325, evaluate_rows=0,
            optimiser=AdamW(learning_rate=1.5e-4),
        ),
    ),
    "base": Size(
        source="google-bert/bert-base-uncased",
        keep="every_other",
        layers=6,
        teacher=dict(
            steps=6000, batch_size=32, evaluate_every=1000, evaluate_rows=0,
            optimiser=AdamW(learning_rate=2e-5),
        ),
        student=dict(
            steps=12000, batch_size=32, evaluate_every=1000, evaluate_rows=0,
            optimiser=AdamW(learning_rate=5e-5),
        ),
    ),
}  # fmt: skip

TERMS = {
    "soft_targets": SoftTargets(weight=1.0, temperature=2.0),
    "hidden": HiddenStates(weight=1.0, layer_map="uniform"),
    "cross_entropy": HardLabels(weight=0.5),
}


def get_config(variant: str = "mini") -> Experiment:
    """The experiment at one size, one of VARIANTS."""
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r} of sst2. {did_you_mean(variant, VARIANTS)}")
    size = VARIANTS[variant]
    head = "sequence_classification"

    stages: dict[str, object] = {
        "loaded": Load(name=size.source, head=head, trim=True, compute="bfloat16")
        if size.source
        else Initialise(model=dataclasses.replace(models.bert("tiny"), head=head)),
        "teacher": Train(source="loaded", freeze=size.freeze, **size.teacher),
        "student_init": Prune(source="loaded", keep=size.keep),
        "student": Train(
            source="student_init",
            teacher="teacher",
            terms=TERMS,
            freeze=size.freeze,
            **size.student,
        ),
        "alone": Train(source="student_init", freeze=size.freeze, **size.student),
        "random": Initialise(like="loaded", layers=size.layers),
        "scratch": Train(source="random", **size.student),
    }
    evaluated = ("teacher", "student_init", "student", "alone", "scratch")
    stages["evaluate"] = Evaluate(models=evaluated)
    stages["export"] = Export(model="student", formats=with_bundles())
    labels = {
        "teacher": "teacher, fine-tuned",
        "student_init": "student from pretrained layers, before",
        "student": "student, distilled",
        "alone": "the same student, fine-tuned without a teacher",
        "scratch": "the same shape from random weights, without a teacher",
    }
    original = {"teacher": 0.911, "student_init": 0.463, "student": 0.893}
    return Experiment(
        title="SST-2: what a small student keeps of its teacher",
        data=data.sst2(embedded=not size.source),
        stages=stages,
        report=Report(
            labels=labels,
            curves=(
                Curve(
                    "Students: accuracy over steps",
                    ("student", "alone", "scratch"),
                    "validation",
                    metric="accuracy",
                ),
            ),
            comparisons=tuple(
                Comparison(f"distilled against {what}", "student", baseline, metric="accuracy")
                for baseline, what in (("alone", "fine-tuned alone"), ("teacher", "its teacher"))
            ),
            references=tuple(
                Reference(f"accuracy, {labels[model]}", value, model, metric="accuracy")
                for model, value in original.items()
            ),
            reference_source="Efficient knowledge distillation of language models, COMS 6998",
        ),
    )
