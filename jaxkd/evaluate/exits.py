"""What every exit of a model predicts for a split, and how that scores under a rule."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxkd.core.batch import Batch
from jaxkd.core.outputs import Outputs
from jaxkd.metrics.metric import Metric
from jaxkd.metrics.states import Confusion, on_host
from jaxkd.models.model import Model, Params, forward


@dataclasses.dataclass(frozen=True)
class ExitPredictions:
    """The logits of all exits, the head being the last, in the order in which the rows came."""

    logits: Float[np.ndarray, "rows N C"]
    labels: Float[np.ndarray, " rows"]  # class numbers, or the numbers that are predicted
    labelled: Bool[np.ndarray, " rows"]  # False: the row has no label

    def of(self, exits: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "rows C"]:
        """Each row's logits at its exit."""
        return self.logits[np.arange(len(exits)), exits]


def predict_exits(model: Model, params: Params, batches: Iterable[Batch]) -> ExitPredictions:
    """All exits' predictions; rows that only fill a batch up, those without a token, are left out.

    Raises:
      ValueError: if there are no batches.
    """

    @jax.jit
    def logits_of(params: Params, batch: Batch) -> Any:
        outputs = forward(model, params, batch)
        return jnp.stack([*outputs.exits.values(), outputs.logits], 1).astype(jnp.float32)

    logits, labels, labelled = [], [], []
    for batch in batches:
        rows = np.asarray(batch.mask).any(1)
        logits.append(np.asarray(logits_of(params, batch))[rows])
        labels.append(np.asarray(batch.targets, np.float64)[rows])
        labelled.append(np.asarray(batch.target_mask)[rows])
    if not logits:
        raise ValueError("there are no batches to predict: the split is empty.")
    return ExitPredictions(*(np.concatenate(each) for each in (logits, labels, labelled)))


def score(
    metric: Metric,
    logits: Float[np.ndarray, "rows C"],
    labels: Float[np.ndarray, " rows"],
    labelled: Bool[np.ndarray, " rows"],
) -> float:
    """A metric of classes or numbers, of logits that are there already."""
    return float(metric.finish(state_of(metric, logits, labels, labelled)))


def state_of(
    metric: Metric,
    logits: Float[np.ndarray, "rows C"],
    labels: Float[np.ndarray, " rows"],
    labelled: Bool[np.ndarray, " rows"],
) -> Any:
    """What that metric is computed from, such as a confusion matrix."""
    kind = np.int32 if logits.shape[-1] > 1 else np.float32
    batch = Batch(
        tokens=jnp.zeros((len(logits), 1), jnp.int32),
        mask=jnp.ones((len(logits), 1), bool),
        targets=jnp.asarray(labels.astype(kind)),
        target_mask=jnp.asarray(labelled),
    )
    outputs = Outputs(logits=jnp.asarray(logits), hidden=())
    return on_host(metric.state(outputs, None, batch))


def answer_quality(
    metric: Metric, logits: Float[np.ndarray, "rows C"], labels: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, "C C"]:
    """What an answer is worth to a metric: [true class, predicted class], higher is better.

    For accuracy 1 where right, 0 where wrong. F1 and Matthews' correlation are not means over rows,
    but functions M of the confusion matrix. Near the matrix C of these n rows M changes as a mean
    over rows does whose values are M + n dM/dC. At C that mean is M itself, because M does not
    change when all counts are multiplied (Euler's theorem).

    Args:
      logits: of the exit whose answers the others are compared with: the last.
      labels: class numbers.

    >>> from jaxkd.metrics.classes import F1
    >>> logits = np.eye(2)[[0, 1, 1, 1]]  # one of three positive answers is wrong: F1 is 0.8
    >>> answer_quality(F1, logits, np.array([0.0, 0.0, 1.0, 1.0])).round(2).tolist()
    [[0.8, 0.16], [0.16, 1.12]]
    """
    classes = logits.shape[1]
    state = state_of(metric, logits, labels, np.ones(len(labels), bool))
    if not isinstance(state, Confusion):
        return np.eye(classes)
    counts = state.counts
    if not (counts.sum(0) > 0).all():
        counts = counts + 0.5  # a class that is never predicted: such metrics have a corner there
    sign = -1 if metric.higher_is_better is False else 1
    step, slopes = 1e-3, np.empty((classes, classes))
    for cell in np.ndindex(classes, classes):
        more, fewer = counts.copy(), counts.copy()
        more[cell] += step
        fewer[cell] -= step
        slopes[cell] = metric.finish(Confusion(more)) - metric.finish(Confusion(fewer))
    return sign * (metric.finish(Confusion(counts)) + counts.sum() * slopes / (2 * step))
