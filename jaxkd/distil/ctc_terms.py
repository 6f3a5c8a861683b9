"""Terms of models that name a label or nothing at each place (CTC): labels, places, hypotheses."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxkd import losses
from jaxkd.core.batch import BLANK, Batch
from jaxkd.core.mean import Mean
from jaxkd.core.outputs import Outputs
from jaxkd.core.stored_targets import NBest
from jaxkd.distil.schedule import Ramp, check_ramps
from jaxkd.distil.vocabulary_terms import check_temperature


@dataclasses.dataclass
class CtcLabels:
    """CTC loss against the data, in nats a label."""

    weight: float = 1.0
    ramps: dict[str, Ramp] = dataclasses.field(default_factory=dict)  # weight

    def check(self, name: str) -> None:
        check_ramps(self, name)

    def count(self, batch: Batch) -> Any:
        return jnp.sum(batch.target_mask, dtype=jnp.float32)

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        return jnp.sum(losses.ctc(student.logits, batch.mask, batch.targets, batch.target_mask))


@dataclasses.dataclass
class FrameTargets:
    """T^2 KL(teacher || student) at every place: frame-level distillation.

    Source: Huang et al. (Interspeech 2018), who find it worse than hypotheses: a student is made to
    name its labels exactly where its teacher does.
    """

    weight: float = 1.0
    ramps: dict[str, Ramp] = dataclasses.field(default_factory=dict)  # weight, temperature
    temperature: float = 1.0

    def check(self, name: str) -> None:
        check_ramps(self, name)
        check_temperature(self, name)

    def count(self, batch: Batch) -> Any:
        return jnp.sum(batch.mask, dtype=jnp.float32)

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        mine, its = losses.shared(student.logits, teacher.logits)
        kl = losses.soft_targets(mine, its, temperature=self.temperature)
        return Mean.of(kl, batch.mask).total


@dataclasses.dataclass
class CtcHypotheses(CtcLabels):
    """CTC loss against the teacher's likeliest hypotheses, each by its share among them.

    They are those a Label stage of kind "hypotheses" stored. In nats a label of the data, so that
    it weighs as `CtcLabels` does.
    Source: Huang et al. (Interspeech 2018), sequence-level distillation of CTC.
    """

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        told: NBest = batch.stored_targets
        share = jax.nn.softmax(told.log_p)  # [B, n]; those that lack are at -inf

        def one(ids: Any) -> Any:
            there = ids != BLANK
            return losses.ctc(student.logits, batch.mask, ids, there)

        each = jax.lax.map(one, jnp.moveaxis(told.ids, 1, 0))  # [n, B]
        each = jnp.where(share.T > 0, each, 0.0)
        return jnp.sum(share.T * each)
