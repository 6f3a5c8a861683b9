"""Cross-entropy against the tokens or classes of the data."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxkd.losses.vocabulary import vocabulary_first


def hard_labels(logits: Float[Array, "*B V"], labels: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """-log softmax(logits)[label], in nats; one value per position, not reduced, not masked.

    Computed in float32 whatever comes in. Labels must lie in [0, V): a label of -1 gives the loss
    of the last class and -100 nan, as in optax. Where a mask leaves the position out (`Mean.of`),
    any label is harmless, in the gradient too.

    >>> hard_labels(jnp.zeros((1, 4)), jnp.array([2])).round(4)
    Array([1.3863], dtype=float32)
    """
    logits = vocabulary_first(logits)
    right = jnp.take_along_axis(logits, labels[None], axis=0)[0]
    return jax.nn.logsumexp(logits, axis=0) - right
