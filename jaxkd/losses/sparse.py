"""Losses against a teacher of whom only some tokens are known: its likeliest, or its draws."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxkd.losses.vocabulary import vocabulary_first

SMALLEST = 1e-7  # probability of a tail that float32 can tell from none, beside 1


def top_k_kl(
    student: Float[Array, "*B V"], ids: Int[Array, "*B k"], log_p: Float[Array, "*B k+1"]
) -> Float[Array, "*B"]:
    """KL(p || q) over k + 1 events: the teacher's k likeliest tokens, and any other.

    Never above the whole KL, and 0 where the two agree; a student that gives probability to what
    lies outside is charged for it, which renormalising over the k tokens would not see. At
    temperature 1, in nats, one value a position, float32.

    Source: the chain rule of the KL divergence; the trap is maxtext's PR 4056.

    Args:
      log_p: of the tokens, and last of all others together, which 1 - sum p would not tell exactly.

    >>> teacher = jnp.log(jnp.array([[0.5, 0.25, 0.125, 0.125]]))
    >>> told = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    >>> top_k_kl(teacher, jnp.array([[0, 1]]), told).round(4)
    Array([0.], dtype=float32)
    """
    log_q = _log_q(student, ids)
    log_p = jnp.moveaxis(log_p.astype(jnp.float32), -1, 0)
    known = jnp.sum(jnp.exp(log_p[:-1]) * (log_p[:-1] - log_q), axis=0)
    p_tail = jnp.exp(log_p[-1])
    q_tail = jnp.maximum(1.0 - jnp.sum(jnp.exp(log_q), axis=0), SMALLEST)
    # A tail that float32 cannot see in the student is asked for by no teacher.
    seen = p_tail > SMALLEST
    tail = p_tail * (jnp.where(seen, log_p[-1], 0.0) - jnp.log(q_tail))
    return known + jnp.where(seen, tail, 0.0)


def sampled_cross_entropy(
    student: Float[Array, "*B V"], ids: Int[Array, "*B n"]
) -> Float[Array, "*B"]:
    """-mean of log q over tokens drawn from p: in the mean over draws -sum p log q, exactly.

    So is its gradient in the mean q - p: unbiased, where the likeliest tokens alone are not.
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
