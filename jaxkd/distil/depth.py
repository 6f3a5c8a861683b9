"""Which blocks of a model matter most: those that change the hidden states most.

Source: Men et al. (2024), arXiv:2403.03853 (Block Influence); Muralidharan et al. (2024),
arXiv:2407.14679, prune by it.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import losses
from jaxkd.core.batch import Batch
from jaxkd.models.model import Model, Params, states


def influence(model: Model, params: Params, batches: Iterable[Batch]) -> np.ndarray:
    """[N]: the mean cosine distance of each block's output from its input, over all positions."""

    @jax.jit
    def sums(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
        hidden = states(model, params, batch).hidden
        distances = [
            jnp.sum(jnp.where(batch.mask, losses.cosine_distance(after, before), 0.0))
            for before, after in zip(hidden, hidden[1:], strict=False)
        ]
        return jnp.stack(distances), jnp.sum(batch.mask, dtype=jnp.float32)

    totals = jax.device_get([sums(params, batch) for batch in batches])
    return sum(total for total, _ in totals) / max(sum(count for _, count in totals), 1.0)


def most_influential(scores: np.ndarray, count: int) -> list[int]:
    """The `count` blocks of the highest scores, in their order; among equals the first.

    >>> most_influential(np.array([0.5, 0.1, 0.3, 0.4]), 2)
    [0, 3]
    """
    return sorted(np.argsort(-scores, kind="stable")[:count].tolist())
