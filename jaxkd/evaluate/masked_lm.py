"""A masked language model over a split: its loss, and how close it is to a teacher."""

import math
from collections.abc import Callable, Iterable

import jax

from jaxkd import losses
from jaxkd.core.batch import Batch
from jaxkd.core.mean import Mean
from jaxkd.metrics import masked_lm as metrics
from jaxkd.models.model import Model, Params, forward

Evaluate = Callable[[Params, Params | None, Iterable[Batch]], dict[str, float]]


def make_evaluate(model: Model, teacher: Model | None = None) -> Evaluate:
    """A function (params, teacher's params, batches) -> means over all counted targets.

    `loss` is the negative log-likelihood in nats, `perplexity` its exponential, `accuracy` a
    share. With a teacher also `kl` (T = 1, nats) and `agreement` (share of equal first choices).
    Neither dropout nor LayerDrop is on.
    """

    @jax.jit
    def measure(params: Params, teacher_params: Params | None, batch: Batch) -> dict[str, Mean]:
        logits, mask = forward(model, params, batch).logits, batch.target_mask
        means = {
            "loss": Mean.of(losses.hard_labels(logits, batch.targets), mask),
            "accuracy": metrics.accuracy(logits, batch.targets, mask),
        }
        if teacher is not None:
            taught = forward(teacher, teacher_params, batch).logits
            logits, taught = losses.shared(logits, taught)
            means["kl"] = Mean.of(losses.soft_targets(logits, taught), mask)
            means["agreement"] = metrics.agreement(logits, taught, mask)
        return means

    def evaluate(
        params: Params, teacher_params: Params | None, batches: Iterable[Batch]
    ) -> dict[str, float]:
        rows = jax.device_get([measure(params, teacher_params, batch) for batch in batches])
        merged = {name: sum((row[name] for row in rows), Mean(0.0, 0.0)) for name in rows[0]}
        found = {name: float(mean.compute()) for name, mean in merged.items()}
        return found | {"perplexity": math.exp(found["loss"])}

    return evaluate
