"""Terms over predictions at the target positions: fused with the head, or on its logits."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from jaxkd import losses
from jaxkd.core.batch import Batch
from jaxkd.core.mean import Mean
from jaxkd.core.outputs import Outputs
from jaxkd.core.ranges import check as check_ranges
from jaxkd.core.ranges import field
from jaxkd.core.stored_targets import Draws, TopK
from jaxkd.distil.schedule import Ramp, check_ramps, extremes


@dataclasses.dataclass
class HardLabels:
    """Cross-entropy at the target positions."""

    weight: float = field(1.0, at_least=0)
    ramps: dict[str, Ramp] = dataclasses.field(default_factory=dict)  # weight, temperature

    needs_teacher: ClassVar[bool] = False

    def check(self, name: str) -> None:
        check_ramps(self, name)

    def count(self, batch: Batch) -> Any:
        return jnp.sum(batch.target_mask, dtype=jnp.float32)

    def values(self, student: Any, teacher: Any, labels: Any) -> Any:
        return losses.hard_labels(student, labels)

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        targets = None
        if teacher is not None:
            targets = teacher.logits if teacher.sparse is None else teacher.sparse
        return Mean.of(self.values(student.logits, targets, batch.targets), batch.target_mask).total


@dataclasses.dataclass
class SoftTargets(HardLabels):
    """T^2 KL(teacher || student) at the target positions.

    Against a stored teacher's likeliest tokens the KL over these and their tail; against draws the
    cross-entropy, which in the mean is the KL plus the teacher's entropy. Both at T = 1.
    """

    temperature: float = field(1.0, above=0)

    needs_teacher: ClassVar[bool] = True

    def check(self, name: str) -> None:
        super().check(name)
        check_temperature(self, name)

    def values(self, student: Any, teacher: Any, labels: Any) -> Any:
        if isinstance(teacher, TopK):
            return losses.top_k_kl(student, teacher.ids, teacher.log_p)
        if isinstance(teacher, Draws):
            return losses.sampled_cross_entropy(student, teacher.ids)
        student, teacher = losses.shared(student, teacher)
        return losses.soft_targets(student, teacher, temperature=self.temperature)


def check_temperature(term: Any, name: str) -> None:
    """Raise ValueError unless it is above 0 at every step."""
    least = extremes(term, "temperature")[0]
    if least <= 0:
        raise ValueError(f"{name}.temperature is {least}; it is above 0.")


KINDS = {  # name -> the loss, and the fields of Divergence it takes besides the temperature
    "forward_kl": (losses.soft_targets, ()),
    "reverse_kl": (losses.reverse_kl, ()),
    "jensen_shannon": (losses.jensen_shannon, ("beta", "normalised")),
    "skewed_kl": (losses.skewed_kl, ("alpha",)),
    "skewed_reverse_kl": (losses.skewed_reverse_kl, ("alpha",)),
    "adaptive_kl": (losses.adaptive_kl, ("head",)),
    "total_variation": (losses.total_variation, ()),
    "soft_cross_entropy": (losses.soft_cross_entropy, ()),
}


@dataclasses.dataclass
class Divergence(SoftTargets):
    """Any divergence of losses/divergences.py by its name, at the target positions."""

    kind: str = field("forward_kl", one_of=KINDS)  # name of the loss
    beta: float = field(0.5, above=0, below=1)  # jensen_shannon: weight of the teacher
    normalised: bool = False  # jensen_shannon: divided by beta (1 - beta)
    alpha: float = field(0.1, above=0, below=1)  # skewed_kl, skewed_reverse_kl
    head: float = field(0.5, above=0, below=1)  # adaptive_kl: probability of the teacher's head

    def check(self, name: str) -> None:
        super().check(name)
        check_ranges(self, name)

    def values(self, student: Any, teacher: Any, labels: Any) -> Any:
        loss, fields = KINDS[self.kind]
        options = {field: getattr(self, field) for field in fields}
        student, teacher = losses.shared(student, teacher)
        return loss(student, teacher, temperature=self.temperature, **options)
