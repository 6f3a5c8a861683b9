"""Cross-entropy against the tokens or classes of the data."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def hard_labels(logits: Float[Array, "*B V"], labels: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """-log softmax(logits)[label], in nats; one value per position, not reduced, not masked.

    Computed in float32 whatever comes in. Labels must lie in [0, V), also where they are masked.

    >>> hard_labels(jnp.zeros((1, 4)), jnp.array([2])).round(4)
    Array([1.3863], dtype=float32)
    """
    return optax.losses.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), labels
    )
