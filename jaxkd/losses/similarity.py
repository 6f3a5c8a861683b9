"""Losses that compare how a batch lies in two spaces, whatever their widths."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxkd.losses.vocabulary import Scalar


def cka_distance(
    student: Float[Array, "N D"], teacher: Float[Array, "N E"], mask: Bool[Array, " N"]
) -> Float[Array, ""]:
    """1 - linear CKA of the rows that count, in [0, 1]: 0 if one is a rotation of the other.

    One number for the whole batch; with micro-batches or shards it is another number, for it is
    no sum over rows. Computed in float32.
    Source: Kornblith et al. (2019), arXiv:1905.00414, equation 4.
    """
    weight = mask.astype(jnp.float32)[:, None]

    def centred(x: Float[Array, "N F"]) -> Float[Array, "N F"]:
        x = jnp.where(mask[:, None], x.astype(jnp.float32), 0.0)
        return (x - jnp.sum(x, 0) / jnp.maximum(jnp.sum(weight), 1)) * weight

    a, b = centred(student), centred(teacher)
    cross = jnp.sum((a.T @ b) ** 2)
    own = jnp.sum((a.T @ a) ** 2) * jnp.sum((b.T @ b) ** 2)
    return 1 - cross / jnp.sqrt(jnp.maximum(own, jnp.finfo(jnp.float32).tiny))


def contrastive(
    student: Float[Array, "N D"],
    teacher: Float[Array, "N D"],
    mask: Bool[Array, " N"],
    *,
    temperature: Scalar = 0.1,
) -> Float[Array, " N"]:
    """-log of the share each row gives its own teacher vector among all that count, in nats.

    Vectors are compared by their cosine over `temperature`; rows that are masked are nobody's
    negatives, and their own values mean nothing. Not reduced.
    Source: Oord et al. (2018), arXiv:1807.03748, within the batch; the pairing of Tian et al.
    (2019), arXiv:1910.10699.

    Raises:
      ValueError: if temperature <= 0.
    """
    if not isinstance(temperature, jax.core.Tracer) and temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be positive.")
    a, b = (
        x / jnp.sqrt(jnp.maximum(jnp.sum(x**2, -1, keepdims=True), 1e-16))
        for x in (student.astype(jnp.float32), teacher.astype(jnp.float32))
    )
    scores = a @ b.T / temperature
    own = jnp.diagonal(scores)
    # A masked row keeps itself, so that it has something to be compared with.
    seen = mask[None, :] | jnp.eye(len(mask), dtype=bool)
    return jax.nn.logsumexp(jnp.where(seen, scores, -jnp.inf), axis=-1) - own
