"""Terms of models that predict one number a row: squared error to the label or to the teacher."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from jaxkd.core.batch import Batch
from jaxkd.core.mean import Mean
from jaxkd.core.names import did_you_mean
from jaxkd.core.outputs import Outputs
from jaxkd.distil.schedule import Ramp, check_ramps

TARGETS = ("labels", "teacher")


@dataclasses.dataclass
class SquaredError:
    """(score - target)^2, a mean over rows; the target is the row's label or the teacher's score.

    Scores are the first of a head's outputs, [B, 1], labels [B] floats.
    """

    weight: float = 1.0
    ramps: dict[str, Ramp] = dataclasses.field(default_factory=dict)  # weight
    target: str = "labels"  # or "teacher"

    unit: ClassVar[str] = ""  # the label's unit squared, which nobody states

    @property
    def needs_teacher(self) -> bool:
        return self.target == "teacher"

    def check(self, name: str) -> None:
        check_ramps(self, name)
        if self.target not in TARGETS:
            raise ValueError(f"{name}.target={self.target!r}. {did_you_mean(self.target, TARGETS)}")

    def count(self, batch: Batch) -> Any:
        return jnp.sum(batch.target_mask, dtype=jnp.float32)

    def values(self, student: Any, teacher: Any, labels: Any) -> Any:
        score = student[..., 0].astype(jnp.float32)
        if self.target == "labels":
            return jnp.square(score - labels)
        if teacher is None:
            raise ValueError("SquaredError(target='teacher') needs a teacher, and there is none.")
        return jnp.square(score - teacher[..., 0].astype(jnp.float32))

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        logits = None if teacher is None else teacher.logits
        return Mean.of(self.values(student.logits, logits, batch.targets), batch.target_mask).total
