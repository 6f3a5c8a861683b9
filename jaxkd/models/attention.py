"""Multi-head attention over a padded batch, softmax in float32."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxkd.models.cache_positions import CachePositions, token_positions
from jaxkd.models.dense import Dense
from jaxkd.models.products import mixture, scores
from jaxkd.models.rotary import Rotary

# plain: one product of all queries with all keys. chunked: the same for some queries at a time,
# computed again in the backward pass, so that memory grows with the length and not its square.
# xla, cudnn: jax.nn.dot_product_attention, the second by a GPU's fused kernel (bfloat16 only).
KINDS = ("plain", "chunked", "xla", "cudnn")
CHUNK = 128  # queries at a time
FEW = 8  # so many keys a query and more: the products of cached decoding are narrow


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of the positions a block has seen, of S that there is room for."""

    keys: Any  # [B, G, S, K]
    values: Any  # [B, G, S, K]


def take_columns(cache: Cache, columns: Int[Array, "B C"]) -> Cache:
    """These positions of each row alone, in this order."""
    where = columns[:, None, :, None]
    return Cache(*(jnp.take_along_axis(x, where, axis=2) for x in (cache.keys, cache.values)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BlockInternals:
    """What happened inside an attention, or a block, beside its output."""

    attention: Any = None  # [B, H, L, S] weights, where `plain` computes them
    qkv: Any = None  # (queries [B, H, L, K], keys, values [B, G, L, K]), of itself
    context: Any = None  # [B, L, H K] what each head found, before they are put together
    ffn_activations: Any = None  # [B, L, F] channels of the feed-forward
    cross: Any = None  # [B, H, L, S'] weights over what an encoder read
    cache: Any = None  # what it needs to go on; None if it was given none


class Attention(nn.Module):
    """Softmax(q k / sqrt(K)) v with a padding mask; a row that attends to nothing gives the mean.

    Queries, keys and values are separate projections, so that layers can be copied, cut by head
    and written to other formats without repacking.
    """

    width: int
    heads: int
    dropout: float
    init_std: float
    dtype: Any
    kind: str = "plain"  # one of KINDS
    kv_heads: int = 0  # each serves heads / kv_heads queries; 0: one each
    head_width: int = 0  # 0: width / heads
    bias: bool = True  # of queries, keys and values
    output_bias: bool = True
    causal: bool = False
    cross: bool = False  # keys and values are of a memory, not of what asks
    rotary: Rotary | None = None
    query_norm: float = 0.0  # epsilon of a norm of each query and key; 0: none

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        mask: Bool[Array, "B S"] | None,
        *,
        train: bool,
        memory: Float[Array, "B S D"] | None = None,
        cache: Cache | None = None,
        places: CachePositions | None = None,
    ) -> tuple[Float[Array, "B L D"], BlockInternals]:
        """What was attended to, and how: weights (`plain` only), vectors, the cache after this.

        Args:
          mask: of the positions attended to; `places` say so instead where there is a cache of
            these tokens themselves.
          memory: for `cross`; needed once, a cache then has its keys and values.
        """
        k = self.head_width or self.width // self.heads
        groups = self.kv_heads or self.heads

        own = (self.dtype, self.init_std)

        def project(source: Array, name: str, heads: int) -> Float[Array, "B H _ K"]:
            # Heads before positions: both products below are then plain batched matrix products.
            found = Dense(heads * k, *own, self.bias, name=name)(source)
            return found.reshape(*source.shape[:2], heads, k).swapaxes(1, 2)

        query = project(hidden, "query", self.heads)
        if self.cross and memory is None:
            key, value = cache.keys, cache.values
        else:
            source = memory if self.cross else hidden
            key, value = (project(source, name, groups) for name in ("key", "value"))
        if self.query_norm:
            query = nn.RMSNorm(self.query_norm, dtype=self.dtype, name="query_norm")(query)
            key = nn.RMSNorm(self.query_norm, dtype=self.dtype, name="key_norm")(key)
        if self.rotary is not None:
            positions = places.positions if places else token_positions(mask, 0, hidden.shape[1])
            query, key = self.rotary(query, positions), self.rotary(key, positions)
        vectors = (query, key, value)
        if cache is not None:
            if not self.cross:
                key, value = (
                    written(old, new, places.start)
                    for old, new in ((cache.keys, key), (cache.values, value))
                )
            cache = Cache(key, value)
        seen = places.shown if places else shown(mask, self.causal)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        weights = None
        if self.kind == "plain":
            mixed, weights = attend(query, key, value, seen, drop, cached=cache is not None)
        elif self.kind == "chunked":
            mixed = (
                attend_chunked(query, key, value, seen)
                if places
                else attend_chunked(query, key, value, mask[:, None, :], self.causal)
            )
        else:
            by_position = (x.swapaxes(1, 2) for x in (query, key, value))
            mixed = jax.nn.dot_product_attention(
                *by_position, mask=seen[:, None], implementation=self.kind
            ).swapaxes(1, 2)
        mixed = mixed.swapaxes(1, 2).reshape(*hidden.shape[:2], -1)
        out = Dense(self.width, *own, self.output_bias, name="output")(mixed)
        return out, BlockInternals(weights, vectors, mixed, cache=cache)


def written(old: Float[Array, "B G S K"], new: Float[Array, "B G L K"], start: Any) -> Array:
    """`old` with `new` from position `start` on."""
    new = new.astype(old.dtype)
    if old.dtype != jnp.bfloat16 or jax.default_backend() != "cpu":
        return jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=2)
    # XLA's CPU compiler (jax 0.10.2) writes into bfloat16 by making float32 of the whole and
    # bfloat16 again, and does not where it takes them for integers.
    bits = functools.partial(jax.lax.bitcast_convert_type, new_dtype=jnp.uint16)
    found = jax.lax.dynamic_update_slice_in_dim(bits(old), bits(new), start, axis=2)
    return jax.lax.bitcast_convert_type(found, jnp.bfloat16)


def shown(mask: Bool[Array, "B S"], causal: bool) -> Bool[Array, "B _ S"]:
    """Which positions each query sees: tokens, and if `causal` none after its own."""
    every = jnp.arange(mask.shape[1])
    return mask[:, None, :] & (every <= every[:, None]) if causal else mask[:, None, :]


def attend(
    query: Float[Array, "B H L K"],
    key: Float[Array, "B G S K"],
    value: Float[Array, "B G S K"],
    shown: Bool[Array, "B _ S"],
    drop: Any = lambda weights: weights,
    cached: bool = False,
) -> tuple[Float[Array, "B H L K"], Float[Array, "B H L S"]]:
    """The mixture of values, and the weights (before dropout) in the dtype of the queries.

    Args:
      cached: keys and values are a cache's; nothing is differentiated.
    """
    heads, groups, dtype = query.shape[1], key.shape[1], query.dtype
    shape, length = query.shape, query.shape[2]
    shown = shown[:, None]
    if groups != heads:  # those of a group, side by side
        query = query.reshape(len(query), groups, -1, query.shape[-1])
        shown = shown[:, :, None]

    def apart(x: Array) -> Array:
        return x.reshape(*x.shape[:2], -1, length, x.shape[-1]) if groups != heads else x

    query = query * shape[-1] ** -0.5
    few = cached and FEW * length <= key.shape[-2] and jax.default_backend() == "cpu"
    if few:
        # A CPU takes half the time if keys come first, and XLA (jax 0.10.2) must not undo it.
        found = jax.lax.optimization_barrier(scores(key, query)).swapaxes(-1, -2)
    else:
        found = scores(query, key)
    # Finite, so that a row of padding alone stays finite; far below any score.
    found = jnp.where(shown, apart(found), jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(found).astype(dtype)
    mixed = mixture(drop(weights).reshape(*query.shape[:3], -1), value)
    return mixed.reshape(*shape[:3], -1), weights.reshape(*shape[:3], -1)


def attend_chunked(
    query: Float[Array, "B H L K"],
    key: Float[Array, "B G S K"],
    value: Float[Array, "B G S K"],
    shown: Bool[Array, "B _ S"],
    causal: bool = False,
) -> Float[Array, "B H L K"]:
    """`attend` for CHUNK queries at a time; the weights are not kept for the backward pass.

    With `causal`, no query sees a later position, whatever `shown` says; each chunk draws its part
    of that triangle itself, so nothing here grows with the square of the length.

    Source: Rabe and Staats (2021), arXiv:2112.05682, with whole rows of keys.
    """
    length = query.shape[2]
    count = -(-length // CHUNK)
    size = -(-length // count)
    positions = jnp.arange(key.shape[2])

    def cut(x: Array, axis: int) -> Array:
        widths = [(0, count * size - length if i == axis else 0) for i in range(x.ndim)]
        x = jnp.pad(x, widths)
        return jnp.moveaxis(x.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :]), axis, 0)

    @jax.checkpoint
    def one(chunk: tuple[Array, Array, Array | None]) -> Array:
        queries, index, seen = chunk
        seen = shown if seen is None else seen
        if causal:
            rows = index * size + jnp.arange(size)
            seen = seen & (positions <= rows[:, None])
        return attend(queries, key, value, seen)[0]

    each = None if shown.shape[1] == 1 else cut(shown, 1)
    mixed = jnp.moveaxis(jax.lax.map(one, (cut(query, 2), jnp.arange(count), each)), 0, 2)
    return mixed.reshape(*query.shape[:2], count * size, -1)[:, :, :length]
