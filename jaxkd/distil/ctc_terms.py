"""CTC terms, for models with a label or a blank at each position: labels, frames, hypotheses."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxkd import losses
from jaxkd.core.batch import BLANK, Batch
from jaxkd.core.mean import Mean
from jaxkd.core.outputs import Outputs
from jaxkd.core.ranges import field
from jaxkd.core.stored_targets import NBest
from jaxkd.distil.schedule import Ramp, check_ramps
from jaxkd.distil.vocabulary_terms import check_temperature


@dataclasses.dataclass
class CtcLabels:
    """CTC loss against the data, in nats a label."""

    weight: float = field(1.0, at_least=0)
    ramps: dict[str, Ramp] = dataclasses.field(default_factory=dict)  # weight

    needs_teacher: ClassVar[bool] = False

    def check(self, name: str) -> None:
        check_ramps(self, name)

    def count(self, batch: Batch) -> Any:
        return jnp.sum(batch.target_mask, dtype=jnp.float32)

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        return jnp.sum(losses.ctc(student.logits, batch.mask, batch.targets, batch.target_mask))


@dataclasses.dataclass
class FrameTargets:
    """T^2 KL(teacher || student) at every position: frame-level distillation.

    Source: Huang et al. (Interspeech 2018), who find it worse than hypotheses: a student has to
    emit its labels at the very positions of its teacher's.
    """

    weight: float = field(1.0, at_least=0)
    ramps: dict[str, Ramp] = dataclasses.field(default_factory=dict)  # weight, temperature
    temperature: float = field(1.0, above=0)

    needs_teacher: ClassVar[bool] = True

    def check(self, name: str) -> None:
        check_ramps(self, name)
        check_temperature(self, name)

    def count(self, batch: Batch) -> Any:
        return jnp.sum(batch.mask, dtype=jnp.float32)

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        student_logits, teacher_logits = losses.shared(student.logits, teacher.logits)
        kl = losses.soft_targets(student_logits, teacher_logits, temperature=self.temperature)
        return Mean.of(kl, batch.mask).total


@dataclasses.dataclass
class CtcHypotheses(CtcLabels):
    """CTC loss against the teacher's likeliest hypotheses, weighted by their probabilities.

    A Label stage of kind "hypotheses" stores them. In nats a label of the data, the unit of
    `CtcLabels`.
    Source: Huang et al. (Interspeech 2018), sequence-level distillation of CTC.
    """

    needs_teacher: ClassVar[bool] = True

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        hypotheses: NBest = batch.stored_targets
        weights = jax.nn.softmax(hypotheses.log_p)  # [B, n]; missing ones are at -inf

        def loss_of(ids: Any) -> Any:
            return losses.ctc(student.logits, batch.mask, ids, ids != BLANK)

        values = jax.lax.map(loss_of, jnp.moveaxis(hypotheses.ids, 1, 0))  # [n, B]
        values = jnp.where(weights.T > 0, values, 0.0)
        return jnp.sum(weights.T * values)
