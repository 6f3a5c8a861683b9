"""Multi-head self-attention over a padded batch, softmax in float32."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float


class SelfAttention(nn.Module):
    """Softmax(q k / sqrt(K)) v with a padding mask; a row that attends to nothing gives the mean.

    Queries, keys and values are separate projections, so that layers can be copied, cut by head
    and written to other formats without repacking.
    """

    width: int
    heads: int
    dropout: float
    init_std: float
    dtype: Any

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool
    ) -> Float[Array, "B L D"]:
        def project(name: str) -> Float[Array, "B H L K"]:
            dense = nn.Dense(
                self.width,
                dtype=self.dtype,
                kernel_init=nn.initializers.truncated_normal(self.init_std),
                name=name,
            )
            # Heads before positions: both products below are then plain batched matrix products.
            return dense(hidden).reshape(*hidden.shape[:2], self.heads, -1).swapaxes(1, 2)

        query, key, value = project("query"), project("key"), project("value")
        scores = jnp.einsum(
            "BHLK,BHSK->BHLS",
            query * (query.shape[-1] ** -0.5),
            key,
            preferred_element_type=jnp.float32,
        )
        # Finite, so that a row of padding alone stays finite; far below any score.
        scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores).astype(self.dtype)
        weights = nn.Dropout(self.dropout, deterministic=not train)(weights)
        mixed = jnp.einsum("BHLS,BHSK->BHLK", weights, value).swapaxes(1, 2)
        return nn.Dense(
            self.width,
            dtype=self.dtype,
            kernel_init=nn.initializers.truncated_normal(self.init_std),
            name="output",
        )(mixed.reshape(hidden.shape))
