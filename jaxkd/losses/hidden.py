"""Distances between a student's and a teacher's hidden states."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def cosine_distance(
    student: Float[Array, "*B D"], teacher: Float[Array, "*B D"]
) -> Float[Array, "*B"]:
    """1 - cos(student, teacher), in [0, 2]; one value per position, not reduced, not masked.

    Computed in float32 whatever comes in. A vector of zeros has cosine 0 with everything.
    Source: Sanh et al. (2019), arXiv:1910.01108, section 3.

    >>> cosine_distance(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 2.0]]))
    Array([1.], dtype=float32)
    """
    return optax.losses.cosine_distance(
        student.astype(jnp.float32), teacher.astype(jnp.float32), epsilon=1e-8
    )


def squared_distance(
    student: Float[Array, "*B D"], teacher: Float[Array, "*B D"]
) -> Float[Array, "*B"]:
    """Mean over the D dimensions of (student - teacher)^2; one value per position, not reduced.

    A student of another width is projected first. Computed in float32 whatever comes in.
    Source: Jiao et al. (2019), arXiv:1909.10351, equation 9.

    >>> squared_distance(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 2.0]]))
    Array([2.5], dtype=float32)
    """
    gap = student.astype(jnp.float32) - teacher.astype(jnp.float32)
    return jnp.mean(gap**2, axis=-1)
