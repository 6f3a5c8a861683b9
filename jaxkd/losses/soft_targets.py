"""Distillation on soft targets: the divergence of the student's distribution from the teacher's."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxkd.losses.vocabulary import log_softmax


def soft_targets(
    student: Float[Array, "*B V"], teacher: Float[Array, "*B V"], *, temperature: float = 1.0
) -> Float[Array, "*B"]:
    """T^2 KL(softmax(teacher/T) || softmax(student/T)), in nats; one value per position.

    Not reduced, not masked. The factor T^2 keeps the gradient's size independent of T. A token
    whose teacher logit is -inf (a padded vocabulary) has no weight. Computed in float32 whatever
    comes in, as sum p (log p - log q): subtracting an entropy instead goes negative in bfloat16.

    Raises:
      ValueError: if temperature <= 0.
    Source: Hinton, Vinyals, Dean (2015), arXiv:1503.02531, section 2.

    >>> soft_targets(jnp.zeros((1, 3)), jnp.zeros((1, 3)), temperature=2.0)
    Array([0.], dtype=float32)
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be positive (1 changes nothing).")
    log_p, log_q = log_softmax(teacher, temperature), log_softmax(student, temperature)
    # The inner where keeps -inf - -inf out of the value, and with it nan out of the gradient.
    weighted = log_p > -jnp.inf
    gap = jnp.where(weighted, log_p, 0.0) - jnp.where(weighted, log_q, 0.0)
    return temperature**2 * jnp.sum(jnp.exp(log_p) * gap, axis=0)
