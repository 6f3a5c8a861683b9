"""Losses against a teacher known at some tokens only: its k likeliest, or samples."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxkd.losses.vocabulary import vocabulary_first

SMALLEST = 1e-7  # smallest tail probability that float32 distinguishes from 0, next to 1


def top_k_kl(
    student: Float[Array, "*B V"], ids: Int[Array, "*B k"], log_p: Float[Array, "*B k+1"]
) -> Float[Array, "*B"]:
    """KL(p || q) over k + 1 events: the teacher's k likeliest tokens, and all others.

    At most the full KL, and 0 where the two agree. Probability that the student puts outside the k
    tokens costs something; renormalising over the k tokens would ignore it. At
    temperature 1, in nats, one value a position, float32.

    Source: the chain rule of the KL divergence; the trap is maxtext's PR 4056.

    Args:
      log_p: of the tokens, and last of all others together, which 1 - sum p would give inexactly.

    >>> teacher = jnp.log(jnp.array([[0.5, 0.25, 0.125, 0.125]]))
    >>> log_p = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    >>> top_k_kl(teacher, jnp.array([[0, 1]]), log_p).round(4)
    Array([0.], dtype=float32)
    """
    log_q = _log_q(student, ids)
    log_p = jnp.moveaxis(log_p.astype(jnp.float32), -1, 0)
    known = jnp.sum(jnp.exp(log_p[:-1]) * (log_p[:-1] - log_q), axis=0)
    p_tail = jnp.exp(log_p[-1])
    q_tail = jnp.maximum(1.0 - jnp.sum(jnp.exp(log_q), axis=0), SMALLEST)
    # A tail below float32's resolution is not a target.
    seen = p_tail > SMALLEST
    tail = p_tail * (jnp.where(seen, log_p[-1], 0.0) - jnp.log(q_tail))
    return known + jnp.where(seen, tail, 0.0)


def sampled_cross_entropy(
    student: Float[Array, "*B V"], ids: Int[Array, "*B n"]
) -> Float[Array, "*B"]:
    """-mean of log q over tokens drawn from p: an unbiased estimate of -sum p log q.

    Its gradient is unbiased too; that of the likeliest tokens alone is not.
    Source: Anshumann et al. (2025), arXiv:2503.16870.

    >>> sampled_cross_entropy(jnp.zeros((1, 4)), jnp.array([[0, 2, 2]])).round(4)
    Array([1.3863], dtype=float32)
    """
    return -jnp.mean(_log_q(student, ids), axis=0)


def _log_q(student: Array, ids: Array) -> Array:
    """log q of some tokens, [k, *B]."""
    logits = vocabulary_first(student)
    chosen = jnp.take_along_axis(logits, jnp.moveaxis(ids, -1, 0), axis=0)
    return chosen - jax.nn.logsumexp(logits, axis=0)
