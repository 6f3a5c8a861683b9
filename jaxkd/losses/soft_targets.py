"""Distillation on soft targets: the divergence of the student's distribution from the teacher's."""

from jaxtyping import Array, Float

from jaxkd.losses.vocabulary import Scalar, kl, log_distributions


def soft_targets(
    student: Float[Array, "*B V"], teacher: Float[Array, "*B V"], *, temperature: Scalar = 1.0
) -> Float[Array, "*B"]:
    """T^2 KL(softmax(teacher/T) || softmax(student/T)), in nats; one value per position.

    Not reduced, not masked. The factor T^2 keeps the gradient's size independent of T. A token
    whose teacher logit is -inf (a padded vocabulary) has no weight. Computed in float32 whatever
    comes in.

    Raises:
      ValueError: if temperature <= 0.
    Source: Hinton, Vinyals, Dean (2015), arXiv:1503.02531, section 2.

    >>> import jax.numpy as jnp
    >>> soft_targets(jnp.zeros((1, 3)), jnp.zeros((1, 3)), temperature=2.0)
    Array([0.], dtype=float32)
    """
    log_q, log_p = log_distributions(student, teacher, temperature)
    return temperature**2 * kl(log_p, log_q)
