"""What a masked language model got right, and how close a student is to its teacher."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxkd.core.mean import Mean


def accuracy(
    logits: Float[Array, "*B V"], labels: Int[Array, "*B"], mask: Bool[Array, "*B"]
) -> Mean:
    """Share of the counted positions whose likeliest token is the label."""
    return Mean.of((jnp.argmax(logits, -1) == labels).astype(jnp.float32), mask)


def agreement(
    student: Float[Array, "*B V"], teacher: Float[Array, "*B V"], mask: Bool[Array, "*B"]
) -> Mean:
    """Share of the counted positions at which student and teacher prefer the same token."""
    same = jnp.argmax(student, -1) == jnp.argmax(teacher, -1)
    return Mean.of(same.astype(jnp.float32), mask)
