"""A model's predictions over a split: how good they are, and how close to a teacher's."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxkd import losses
from jaxkd.core.batch import Batch
from jaxkd.core.mean import Mean
from jaxkd.distil.teacher import teacher_outputs
from jaxkd.metrics import predictions as metrics
from jaxkd.models.model import Model, Params, forward
from jaxkd.models.quantised import dequantise

Evaluate = Callable[[Params, Params | None, Iterable[Batch]], dict[str, float]]


def make_evaluate(
    model: Model,
    teacher: Model | None = None,
    *,
    top: Sequence[int] = (),
    chunk: int = 0,
    parts: Sequence[str] = (),
) -> Evaluate:
    """A function (params, teacher's params, batches) -> means over all counted targets.

    `loss` is the negative log-likelihood in nats, `perplexity` its exponential, `accuracy` a share,
    `accuracy_5` (for 5 in `top`) that of targets among the five likeliest. With a teacher also `kl`
    (T = 1, nats) and `agreement` (share of equal first choices). Neither dropout nor LayerDrop is
    on.

    Args:
      chunk: positions whose logits exist at once; 0: all.
      parts: of several predictions a row what each is: `accuracy_` of it is told too.

    Parameters may be held in fewer bits (distil/teacher.py).
    """

    def values(logits: Any, taught: Any, labels: Any) -> dict[str, Any]:
        found = {
            "loss": losses.hard_labels(logits, labels),
            "accuracy": metrics.accuracy(logits, labels),
        }
        found |= {f"accuracy_{k}": metrics.accuracy(logits, labels, top=k) for k in top}
        if taught is not None:
            mine, its = losses.shared(logits, taught)
            found["kl"] = losses.soft_targets(mine, its)
            found["agreement"] = metrics.agreement(mine, its)
        return found

    @jax.jit
    def measure(params: Params, teacher_params: Params | None, batch: Batch) -> dict[str, Mean]:
        mine = forward(model, dequantise(params), batch)
        its = teacher_outputs(teacher, teacher_params, batch)
        mask = batch.target_mask
        if not chunk or mine.projection is None:
            found = values(mine.logits, None if its is None else its.logits, batch.targets)
            means = {name: Mean.of(value, mask) for name, value in found.items()}
            for i, part in enumerate(parts):
                means[f"accuracy_{part}"] = Mean.of(found["accuracy"][:, i], mask[:, i])
            return means
        taught = None if its is None else its.projection
        names = ["loss", "accuracy", *(f"accuracy_{k}" for k in top)]
        names += [] if taught is None else ["kl", "agreement"]
        weights = dict.fromkeys(names, 1.0)
        given = (mine.projection, taught, batch.targets, mask)
        totals = losses.fused(values, weights, *given, chunk=chunk)[1]
        count = mask.sum(dtype=float)
        return {name: Mean(total, count) for name, total in totals.items()}

    return _over(measure)


def make_ctc_evaluate(model: Model, teacher: Model | None = None) -> Evaluate:
    """The same for models that name a label or nothing at each place (CTC).

    `loss` is the CTC loss in nats a label, `accuracy` the share of rows spelt right by the
    likeliest path. With a teacher `kl` and `agreement` are means over places.
    """

    @jax.jit
    def measure(params: Params, teacher_params: Params | None, batch: Batch) -> dict[str, Mean]:
        logits = forward(model, dequantise(params), batch).logits
        its = teacher_outputs(teacher, teacher_params, batch)
        labels, asked = batch.targets, batch.target_mask
        cost = losses.ctc(logits, batch.mask, labels, asked)
        right = metrics.spelt_right(logits, batch.mask, labels, asked)
        there = batch.mask.any(1)  # rows that fill a batch up have no place
        found = {
            "loss": Mean(jnp.sum(jnp.where(there, cost, 0.0)), asked.sum(dtype=float)),
            "accuracy": Mean.of(right, there),
        }
        if its is not None:
            mine, taught = losses.shared(logits, its.logits)
            found["kl"] = Mean.of(losses.soft_targets(mine, taught), batch.mask)
            found["agreement"] = Mean.of(metrics.agreement(mine, taught), batch.mask)
        return found

    return _over(measure)


def _over(measure: Callable[..., dict[str, Mean]]) -> Evaluate:
    """Means of all batches together."""

    def evaluate(
        params: Params, teacher_params: Params | None, batches: Iterable[Batch]
    ) -> dict[str, float]:
        rows = jax.device_get([measure(params, teacher_params, batch) for batch in batches])
        merged = {name: sum((row[name] for row in rows), Mean(0.0, 0.0)) for name in rows[0]}
        found = {name: float(mean.compute()) for name, mean in merged.items()}
        return found | {"perplexity": math.exp(found["loss"])}

    return evaluate
