"""Divergences of a student's distribution from a teacher's, other than soft_targets' forward KL.

All take logits [*B, V] of both and give one float32 value a position, in nats (total variation: a
share), not reduced and not masked. A factor T^2 (total variation: T) keeps the gradient's size
independent of the temperature. p is the teacher's distribution and q the student's, both at T.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxkd.losses.vocabulary import (
    Scalar,
    check_temperature,
    expectation,
    kl,
    log_distributions,
    vocabulary_first,
)

LEAST = 1e-37  # a probability is divided by at least this: what is smaller float32 may flush to 0


def soft_cross_entropy(
    student: Float[Array, "*B V"], teacher: Float[Array, "*B V"], *, temperature: Scalar = 1.0
) -> Float[Array, "*B"]:
    """-T^2 sum p log q: the forward KL plus the teacher's entropy, so never 0 at equality.

    Its gradient is that of `soft_targets`; its value is not comparable between teachers.

    >>> soft_cross_entropy(jnp.zeros((1, 4)), jnp.zeros((1, 4))).round(4)
    Array([1.3863], dtype=float32)
    """
    log_q, log_p = log_distributions(student, teacher, temperature)
    return -(temperature**2) * expectation(log_p, log_q)


def reverse_kl(
    student: Float[Array, "*B V"], teacher: Float[Array, "*B V"], *, temperature: Scalar = 1.0
) -> Float[Array, "*B"]:
    """T^2 KL(q || p): penalises tokens to which the teacher gives little probability.

    Infinite where q has weight and p none: restrict both to the tokens they share before.
    Source: Gu et al. (2023), arXiv:2306.08543.

    >>> round(float(reverse_kl(jnp.zeros((1, 2)), jnp.log(jnp.array([[0.75, 0.25]])))[0]), 4)
    0.1438
    """
    log_q, log_p = log_distributions(student, teacher, temperature)
    return temperature**2 * kl(log_q, log_p)


def jensen_shannon(
    student: Float[Array, "*B V"],
    teacher: Float[Array, "*B V"],
    *,
    beta: float = 0.5,
    normalised: bool = False,
    temperature: Scalar = 1.0,
) -> Float[Array, "*B"]:
    """T^2 (beta KL(p || m) + (1 - beta) KL(q || m)), m = beta p + (1 - beta) q.

    Bounded, and symmetric at beta = 0.5. It goes to 0 as beta goes to 0 or 1, so a sweep over beta
    also changes its weight; `normalised` divides by beta (1 - beta), which goes to the forward KL
    at 0 and to the reverse KL at 1.
    Source: Agarwal et al. (2023), arXiv:2306.13649, equation 1 (not normalised).

    Raises:
      ValueError: unless 0 < beta < 1; the ends are `soft_targets` and `reverse_kl`.

    >>> certain = jnp.array([[1e4, 0.0]])  # against its opposite: ln 2, the largest there is
    >>> round(float(jensen_shannon(certain, certain[:, ::-1])[0]), 4)
    0.6931
    """
    if not 0 < beta < 1:
        raise ValueError(
            f"beta is {beta}; it lies between 0 and 1. For the ends use soft_targets (forward KL) "
            "and reverse_kl."
        )
    check_temperature(temperature)
    student_logits, teacher_logits = (
        vocabulary_first(logits) / temperature for logits in (student, teacher)
    )
    value = _jensen_shannon(beta, student_logits, teacher_logits)
    return temperature**2 * value / (beta * (1 - beta) if normalised else 1.0)


def skewed_kl(
    student: Float[Array, "*B V"],
    teacher: Float[Array, "*B V"],
    *,
    alpha: float = 0.1,
    temperature: Scalar = 1.0,
) -> Float[Array, "*B"]:
    """T^2 KL(p || alpha p + (1 - alpha) q): the forward KL, bounded by -log alpha.

    Source: Ko et al. (2024), arXiv:2402.03898, equation 4.

    Raises:
      ValueError: unless 0 < alpha < 1.

    >>> certain = jnp.array([[1e4, 0.0]])  # against its opposite: -ln 0.1
    >>> skewed_kl(certain, certain[:, ::-1]).round(4)
    Array([2.3026], dtype=float32)
    """
    _check_alpha(alpha)
    log_q, log_p = log_distributions(student, teacher, temperature)
    return -(temperature**2) * expectation(log_p, _log_mixture(log_p, log_q, alpha)[0])


def skewed_reverse_kl(
    student: Float[Array, "*B V"],
    teacher: Float[Array, "*B V"],
    *,
    alpha: float = 0.1,
    temperature: Scalar = 1.0,
) -> Float[Array, "*B"]:
    """T^2 KL(q || (1 - alpha) p + alpha q): the reverse KL, bounded by -log alpha.

    Source: Ko et al. (2024), arXiv:2402.03898, equation 5.

    Raises:
      ValueError: unless 0 < alpha < 1.
    """
    _check_alpha(alpha)
    log_q, log_p = log_distributions(student, teacher, temperature)
    return -(temperature**2) * expectation(log_q, _log_mixture(log_q, log_p, alpha)[0])


def adaptive_kl(
    student: Float[Array, "*B V"],
    teacher: Float[Array, "*B V"],
    *,
    head: float = 0.5,
    temperature: Scalar = 1.0,
) -> Float[Array, "*B"]:
    """Forward and reverse KL, weighted by where the student is wrong.

    The teacher's likeliest tokens that together have probability `head` are its head, the others
    its tail. The forward KL's weight is the head's share of sum |p - q|, the reverse KL's the
    tail's; weights are not differentiated.
    Source: Wu et al. (2024), arXiv:2404.02657, section 4.

    Raises:
      ValueError: unless 0 < head < 1.
    """
    if not 0 < head < 1:
        raise ValueError(f"head is {head}; it is a probability between 0 and 1.")
    log_q, log_p = log_distributions(student, teacher, temperature)
    p = jnp.exp(log_p)
    order = jnp.argsort(-p, axis=0)
    ordered = jnp.take_along_axis(p, order, axis=0)
    before = jnp.cumsum(ordered, axis=0) - ordered
    gap = jnp.take_along_axis(jnp.abs(p - jnp.exp(log_q)), order, axis=0)
    of_head, whole = jnp.sum(jnp.where(before < head, gap, 0.0), axis=0), jnp.sum(gap, axis=0)
    share = jnp.where(whole > 0, of_head / jnp.where(whole > 0, whole, 1.0), 0.5)
    share = jax.lax.stop_gradient(share)
    return temperature**2 * (share * kl(log_p, log_q) + (1 - share) * kl(log_q, log_p))


def total_variation(
    student: Float[Array, "*B V"], teacher: Float[Array, "*B V"], *, temperature: Scalar = 1.0
) -> Float[Array, "*B"]:
    """T/2 sum |p - q|: at T = 1 the share of draws in which the two differ at least.

    Source: Wen et al. (2023), arXiv:2307.15190.

    >>> student, teacher = jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.8, 0.2]]))
    >>> round(float(total_variation(student, teacher)[0]), 4)
    0.3
    """
    log_q, log_p = log_distributions(student, teacher, temperature)
    return temperature / 2 * jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)), axis=0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _jensen_shannon(
    beta: float, student: Float[Array, " V *B"], teacher: Float[Array, " V *B"]
) -> Float[Array, "*B"]:
    return _jensen_shannon_forward(beta, student, teacher)[0]


def _jensen_shannon_forward(beta: float, student: Array, teacher: Array) -> tuple[Array, Any]:
    """One exponential and one logarithm a logit, and a gradient that needs neither again.

    With m / p = 1 + (1 - beta)(q - p) / p, all is exactly 0 where the two agree.
    """
    q, p = jax.nn.softmax(student, axis=0), jax.nn.softmax(teacher, axis=0)
    gap = q - p
    to_p = jnp.log1p((1 - beta) * gap / jnp.maximum(p, LEAST))  # log(m / p)
    to_q = jnp.log1p(-beta * gap / jnp.maximum(q, LEAST))
    mean_p, mean_q = jnp.sum(p * to_p, axis=0), jnp.sum(q * to_q, axis=0)
    value = -beta * mean_p - (1 - beta) * mean_q
    return value, (p, q, to_p, to_q, mean_p, mean_q)


def _jensen_shannon_backward(beta: float, kept: Any, along: Array) -> tuple[Array, Array]:
    """dL/dz = q (f - E_q f) with f = dL/dq = -(1 - beta) log(m / q), and so for the teacher."""
    p, q, to_p, to_q, mean_p, mean_q = kept
    return along * (1 - beta) * q * (mean_q - to_q), along * beta * p * (mean_p - to_p)


_jensen_shannon.defvjp(_jensen_shannon_forward, _jensen_shannon_backward)


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it lies between 0 (plain KL) and 1 (no loss at all).")


def _log_mixture(log_a: Array, log_b: Array, weight: float) -> tuple[Array, Array]:
    """log(m / a) and log(m / b), m = weight a + (1 - weight) b; exactly 0 where a = b.

    With d = log b - log a: m / a = 1 + (1 - weight)(e^d - 1). Beyond e^80 one of the two has no
    weight that float32 would notice, and d stops there, so that nothing overflows.
    """
    both = (log_a > -jnp.inf) | (log_b > -jnp.inf)
    d = jnp.clip(jnp.where(both, log_b, 0.0) - jnp.where(both, log_a, 0.0), -80.0, 80.0)
    to_a = jnp.log1p((1 - weight) * jnp.expm1(d))
    return to_a, to_a - d
