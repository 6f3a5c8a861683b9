"""Metrics that are losses: negative log-likelihood, perplexity, KL to a teacher, CTC."""

import math
from typing import Any

import jax.numpy as jnp

from jaxkd import losses
from jaxkd.core.batch import Batch
from jaxkd.core.mean import Mean
from jaxkd.core.outputs import Outputs
from jaxkd.metrics.metric import Metric, PerTarget
from jaxkd.metrics.predictions import agreement, spelt_right


def _nll(student: Any, teacher: Any, labels: Any) -> Any:
    return losses.hard_labels(student, labels)


def _kl(student: Any, teacher: Any, labels: Any) -> Any:
    return losses.soft_targets(*losses.shared(student, teacher), temperature=1.0)


def _perplexity(state: Mean) -> float:
    loss = float(state.compute())
    try:
        return math.exp(loss)
    except OverflowError:  # a finite loss above 709.78 nats: training has diverged
        return math.inf


LOSS = PerTarget("loss", "loss", "nats", False, values=_nll)
PERPLEXITY = PerTarget(
    "perplexity", "perplexity", "", False, columns="report", values=_nll, finish=_perplexity
)
SHORT_PERPLEXITY = PerTarget(
    "perplexity", "perplexity", "", False, values=_nll, finish=_perplexity
)  # of language models: also in the short tables
KL = PerTarget("kl", "KL to teacher", "nats", False, True, values=_kl)


def _ctc_loss(student: Outputs, teacher: Outputs | None, batch: Batch) -> Mean:
    cost = losses.ctc(student.logits, batch.mask, batch.targets, batch.target_mask)
    in_use = batch.mask.any(1)  # rows that fill a batch up have no position
    total = jnp.sum(jnp.where(in_use, cost, 0.0))
    return Mean(total, batch.target_mask.sum(dtype=float))


def _ctc_exact(student: Outputs, teacher: Outputs | None, batch: Batch) -> Mean:
    correct = spelt_right(student.logits, batch.mask, batch.targets, batch.target_mask)
    return Mean.of(correct, batch.mask.any(1))


def _frame_kl(student: Outputs, teacher: Outputs | None, batch: Batch) -> Mean:
    logits = losses.shared(student.logits, teacher.logits)
    return Mean.of(losses.soft_targets(*logits, temperature=1.0), batch.mask)


def _frame_agreement(student: Outputs, teacher: Outputs | None, batch: Batch) -> Mean:
    return Mean.of(agreement(*losses.shared(student.logits, teacher.logits)), batch.mask)


CTC_LOSS = Metric("loss", "CTC loss per label", "nats", False, read=_ctc_loss)
CTC_EXACT = Metric("accuracy", "rows spelt right", "%", read=_ctc_exact)
FRAME_KL = Metric("kl", "KL to teacher", "nats", False, True, read=_frame_kl)
FRAME_AGREEMENT = Metric(
    "agreement", "agreement with teacher", "%", True, True, read=_frame_agreement
)
