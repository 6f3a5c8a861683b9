"""Connectionist temporal classification: labels that come in order, at places nobody named."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxkd.core.batch import BLANK


def ctc(
    logits: Float[Array, "B L V"],
    mask: Bool[Array, "B L"],
    labels: Int[Array, "B N"],
    label_mask: Bool[Array, "B N"],
    *,
    blank: int = BLANK,
) -> Float[Array, " B"]:
    """-log of the probability of all paths that spell the labels, in nats a row.

    A path gives each place a label or the blank; it spells what is left when equal neighbours are
    one and blanks are taken out. Labels and places are padded on the right. A row without places
    and without labels costs nothing; labels that do not fit into the places cost about 1e5.
    Source: Graves et al. (2006); optax.ctc_loss.
    """
    return optax.ctc_loss(
        logits.astype(jnp.float32),
        1.0 - mask.astype(jnp.float32),
        labels,
        1.0 - label_mask.astype(jnp.float32),
        blank_id=blank,
    )
