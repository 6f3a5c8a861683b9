"""CTC loss: label sequences without an alignment to the input."""

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

    A path has a label or the blank at each position; merging equal neighbours and removing blanks
    gives its spelling. Labels and positions are padded on the right. A row without positions and
    labels costs 0; labels that do not fit into the positions cost about 1e5.
    Source: Graves et al. (2006); optax.ctc_loss.
    """
    return optax.ctc_loss(
        logits.astype(jnp.float32),
        1.0 - mask.astype(jnp.float32),
        labels,
        1.0 - label_mask.astype(jnp.float32),
        blank_id=blank,
    )
