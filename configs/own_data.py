"""Experiments on your own data: a teacher by name, and a student of some of its blocks."""

import dataclasses
from typing import Any

from configs import models
from jaxkd.core.ranges import field
from jaxkd.distil.terms import HardLabels, SoftTargets
from jaxkd.runs.experiment import Experiment
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.load import Load
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train
from jaxkd.train.optimiser import AdamW

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@dataclasses.dataclass
class OwnData(Experiment):
    """An experiment whose stages follow from a few fields of its own.

    `resolve` is called once all flags are set. What a flag has set explicitly in a stage stays.
    """

    teacher: str = ""  # HuggingFace folder, hub id, or the folder of a stage of ours
    layers: int = field(3, at_least=1)  # blocks of the teacher that the student keeps

    def resolve(self) -> None:
        if self.data.origin != "embedded" and not self.data.train:
            raise ValueError(
                "data.train is empty. Give your own file: --config.data.train=FILE (see the top of "
                "the experiment's file for its formats)."
            )
        loaded = self.stages.get("loaded")
        if isinstance(loaded, Load):
            loaded.name = loaded.name or self.teacher
            self.data.tokenizer = self.data.tokenizer or loaded.name
        student = self.stages.get("student_init")
        if student is not None and hasattr(student, "keep"):
            student.keep = student.keep or f"evenly {self.layers}"
        if not self.title:
            self.title = f"{self.data.train or self.data.origin}: what a small student keeps"


def training(rate: float, epochs: float, batch: int, **more: Any) -> dict[str, Any]:
    """Settings of a training on data of any size."""
    settings = dict(
        steps=5000, epochs=float(epochs), batch_size=batch, evaluate_every=200, save_every=200,
        evaluate_rows=1024, optimiser=AdamW(learning_rate=rate),
    )  # fmt: skip
    return settings | more


def decoder_stages(smoke: bool, teacher: dict[str, Any], student: dict[str, Any]) -> dict[str, Any]:
    """A decoder is fine-tuned; a student of its blocks learns from its distribution, and alone.

    Args:
      teacher, student: settings of their trainings.
    """
    loaded: Any = Load(head="causal_lm", compute="bfloat16")
    if smoke:
        loaded = Initialise(model=models.llama("smoke", "teacher"))
    terms = {"soft_targets": SoftTargets(), "cross_entropy": HardLabels(weight=0.5)}
    return {
        "loaded": loaded,
        "teacher": Train(source="loaded", **teacher),
        "student_init": Prune(source="teacher", keep=""),
        "student": Train(source="student_init", teacher="teacher", terms=terms, **student),
        "alone": Train(source="student_init", **student),
    }


def smoke_training(steps: int = 10, **more: Any) -> dict[str, Any]:
    """The same for a run of seconds."""
    return dict(steps=steps, batch_size=16, log_every=5, evaluate_rows=64) | more


__all__ = ["MINILM", "Initialise", "Load", "OwnData", "Train", "smoke_training", "training"]
