"""Distances between a student's and a teacher's attention: maps, or relations of vectors."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def attention_squared(
    student: Float[Array, "B H L S"], teacher: Float[Array, "B H L S"], mask: Bool[Array, "B S"]
) -> Float[Array, "B H L"]:
    """Mean over the unmasked keys of (student - teacher)^2; one value per head and query.

    Source: Jiao et al. (2019), arXiv:1909.10351, equation 7 (there on the unnormalised scores).
    """
    counted = mask[:, None, None, :]
    gap = jnp.where(counted, student.astype(jnp.float32) - teacher.astype(jnp.float32), 0.0)
    return jnp.sum(gap**2, -1) / jnp.maximum(jnp.sum(counted, -1), 1)


def attention_kl(
    student: Float[Array, "B H L S"], teacher: Float[Array, "B H L S"]
) -> Float[Array, "B H L"]:
    """KL(teacher || student) of maps of probabilities, in nats; one value per head and query.

    A key to which the teacher gives no weight (padding) counts 0. A student's weight counts as at
    least the smallest normal float32, 1.2e-38: a softmax underflows where scores are 88 apart, and
    the loss and its gradient stay finite (such a weight itself gets no gradient).
    Source: Wang et al. (2020), arXiv:2002.10957, equation 6.
    """
    p, q = teacher.astype(jnp.float32), student.astype(jnp.float32)
    # Double where: no log of 0, and no nan of it in the gradient.
    weighted = p > 0
    log_p = jnp.log(jnp.where(weighted, p, 1.0))
    log_q = jnp.log(jnp.where(weighted, jnp.maximum(q, jnp.finfo(jnp.float32).tiny), 1.0))
    return jnp.sum(jnp.where(weighted, p * (log_p - log_q), 0.0), axis=-1)


def relation_kl(
    student: tuple[Float[Array, "B L D"], Float[Array, "B L D"]],
    teacher: tuple[Float[Array, "B L E"], Float[Array, "B L E"]],
    mask: Bool[Array, "B L"],
    *,
    heads: int,
    causal: bool = False,
) -> Float[Array, "B R L"]:
    """KL between teacher's and student's softmax(a b^T / sqrt(width)), one value per head and row.

    (query, key) are MiniLM's attention, (value, value) its value relation; equal pairs of queries,
    keys and values those of its second version, with R = `heads` relation heads, whatever the
    models' own numbers of heads; the models' widths may differ too.
    `causal` leaves out later positions, as a decoder's attention does.
    Source: Wang et al. (2020), arXiv:2002.10957, and (2021), arXiv:2012.15828.

    Raises:
      ValueError: if a width is not divisible by `heads`.
    """

    # A row of padding alone has no distribution: it gets one that is not counted.
    visible = (mask | ~jnp.any(mask, axis=-1, keepdims=True))[:, None, None, :]
    weighted = mask[:, None, None, :]
    if causal:
        length = mask.shape[1]
        before = jnp.tril(jnp.ones((length, length), bool))
        # Itself always: padding on the left leaves a query no other key.
        visible, weighted = (visible & before) | jnp.eye(length, dtype=bool), weighted & before

    def relation(pair: tuple[Array, Array]) -> Float[Array, "B R L L"]:
        width = pair[0].shape[-1]
        if width % heads:
            raise ValueError(f"a width of {width} does not divide into {heads} relation heads.")
        a, b = (x.astype(jnp.float32).reshape(*x.shape[:2], heads, -1).swapaxes(1, 2) for x in pair)
        scores = a @ b.swapaxes(-1, -2) * (width // heads) ** -0.5
        return jax.nn.log_softmax(jnp.where(visible, scores, -jnp.inf))

    log_p, log_q = relation(teacher), relation(student)
    gap = jnp.where(weighted, log_p, 0.0) - jnp.where(weighted, log_q, 0.0)
    return jnp.sum(jnp.where(weighted, jnp.exp(log_p), 0.0) * gap, axis=-1)
