"""What a masked language model got right, and how close a student is to its teacher."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxkd.core.mean import Mean


def first_choice(logits: Float[Array, "*B V"]) -> Int[Array, "*B"]:
    """The likeliest token of each position; the lowest id among equals, as argmax chooses.

    Two plain reductions over the vocabulary's axis in front, which XLA's CPU backend vectorises;
    argmax it does not. Seen with jax 0.10.2 on 2 cores of a 2.5 GHz Xeon, 640 positions of width
    128, 30,522 entries, head and cross-entropy and choice, least of 5: 69 ms against 165 ms.

    >>> first_choice(jnp.array([[0.0, 3.0, 3.0], [1.0, 0.0, -jnp.inf]]))
    Array([1, 0], dtype=int32)
    """
    scores = jnp.moveaxis(logits, -1, 0)
    ids = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    return jnp.min(jnp.where(scores == jnp.max(scores, axis=0), ids, len(scores) - 1), axis=0)


def accuracy(
    logits: Float[Array, "*B V"], labels: Int[Array, "*B"], mask: Bool[Array, "*B"]
) -> Mean:
    """Share of the counted positions whose likeliest token is the label."""
    return Mean.of((first_choice(logits) == labels).astype(jnp.float32), mask)


def agreement(
    student: Float[Array, "*B V"], teacher: Float[Array, "*B V"], mask: Bool[Array, "*B"]
) -> Mean:
    """Share of the counted positions at which student and teacher prefer the same token."""
    same = first_choice(student) == first_choice(teacher)
    return Mean.of(same.astype(jnp.float32), mask)
