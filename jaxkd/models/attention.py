"""Multi-head self-attention over a padded batch, softmax in float32."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxkd.models.rotary import Rotary


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of the positions a block has seen, of S that there is room for."""

    keys: Any  # [B, G, S, K]
    values: Any  # [B, G, S, K]
    seen: Any  # scalar int32


def token_positions(mask: Bool[Array, "B S"], start: Any, length: int) -> Int[Array, "B L"]:
    """0, 1, 2 ... over tokens, so that padding moves nothing; of `length` columns from `start`."""
    counted = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
    return jax.lax.dynamic_slice_in_dim(counted, start, length, axis=1)


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
    kv_heads: int = 0  # each serves heads / kv_heads queries; 0: one each
    head_width: int = 0  # 0: width / heads
    bias: bool = True  # of queries, keys and values
    output_bias: bool = True
    causal: bool = False
    rotary: Rotary | None = None
    query_norm: float = 0.0  # epsilon of a norm of each query and key; 0: none

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        mask: Bool[Array, "B S"],
        *,
        train: bool,
        cache: Cache | None = None,
    ) -> Any:
        """[B, L, D]; with a cache, whose S positions `mask` is then of, (that, the new cache)."""
        start = 0 if cache is None else cache.seen
        k = self.head_width or self.width // self.heads
        groups = self.kv_heads or self.heads

        def dense(features: int, bias: bool, name: str) -> nn.Dense:
            init = nn.initializers.truncated_normal(self.init_std)
            return nn.Dense(features, use_bias=bias, dtype=self.dtype, kernel_init=init, name=name)

        def project(name: str, heads: int) -> Float[Array, "B H L K"]:
            # Heads before positions: both products below are then plain batched matrix products.
            found = dense(heads * k, self.bias, name)(hidden)
            return found.reshape(*hidden.shape[:2], heads, k).swapaxes(1, 2)

        query, key, value = (
            project(name, n)
            for name, n in (("query", self.heads), ("key", groups), ("value", groups))
        )
        if self.query_norm:
            query = nn.RMSNorm(self.query_norm, dtype=self.dtype, name="query_norm")(query)
            key = nn.RMSNorm(self.query_norm, dtype=self.dtype, name="key_norm")(key)
        if self.rotary is not None:
            positions = token_positions(mask, start, hidden.shape[1])
            query, key = self.rotary(query, positions), self.rotary(key, positions)
        if cache is not None:
            key, value = (
                jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), start, axis=2)
                for old, new in ((cache.keys, key), (cache.values, value))
            )
            cache = Cache(key, value, start + hidden.shape[1])
        shown = mask[:, None, None, :]
        if self.causal:
            rows = start + jnp.arange(hidden.shape[1])
            shown = shown & (jnp.arange(mask.shape[1]) <= rows[:, None])
        if groups == self.heads:
            pairs, mixture = "BHLK,BHSK->BHLS", "BHLS,BHSK->BHLK"
        else:
            pairs, mixture = "BGHLK,BGSK->BGHLS", "BGHLS,BGSK->BGHLK"
            query = query.reshape(query.shape[0], groups, -1, *query.shape[2:])
            shown = shown[:, :, None]
        scores = jnp.einsum(pairs, query * (k**-0.5), key, preferred_element_type=jnp.float32)
        # Finite, so that a row of padding alone stays finite; far below any score.
        scores = jnp.where(shown, scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores).astype(self.dtype)
        weights = nn.Dropout(self.dropout, deterministic=not train)(weights)
        mixed = jnp.einsum(mixture, weights, value)
        mixed = mixed.reshape(hidden.shape[0], self.heads, -1, k).swapaxes(1, 2)
        mixed = dense(self.width, self.output_bias, "output")(mixed.reshape(*hidden.shape[:2], -1))
        return mixed if cache is None else (mixed, cache)
