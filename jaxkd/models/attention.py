"""Multi-head attention over a padded batch, softmax in float32."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxkd.core.backend import cpu_workarounds
from jaxkd.models.cache_positions import CachePositions, token_positions
from jaxkd.models.dense import Dense
from jaxkd.models.dropout import Dropout, dropped
from jaxkd.models.products import mixture, scores
from jaxkd.models.rotary import Rotary

# plain: one product of all queries with all keys. chunked: the same for some queries at a time,
# computed again in the backward pass, so that memory grows with the length and not its square.
# xla, cudnn: jax.nn.dot_product_attention, the second by a GPU's fused kernel (bfloat16 only).
KINDS = ("plain", "chunked", "xla", "cudnn")
CHUNK = 128  # queries at a time
LONG = 256 * 256  # queries times keys of a row from which on a CPU takes some rows at a time
ROWS, ROWS_BYTES = 4, 32 << 20  # rows at a time; half of them if their weights are larger
FEW_QUERIES = 8  # from this many keys a query on, the products of cached decoding are narrow


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of the positions a block has seen, with room for S."""

    keys: Any  # [B, G, S, K]
    values: Any  # [B, G, S, K]


def gather_columns(cache: Cache, columns: Int[Array, "B C"]) -> Cache:
    """The cache of these positions of each row alone, in this order."""
    where = columns[:, None, :, None]
    return Cache(*(jnp.take_along_axis(x, where, axis=2) for x in (cache.keys, cache.values)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BlockInternals:
    """Intermediates of an attention or a block."""

    attention: Any = None  # [B, H, L, S] weights, where `plain` computes them
    qkv: Any = None  # (queries [B, H, L, K], keys, values [B, G, L, K]) of self-attention
    context: Any = None  # [B, L, H K] each head's weighted values, before the output projection
    ffn_activations: Any = None  # [B, L, F] channels of the feed-forward
    cross: Any = None  # [B, H, L, S'] weights over the encoder's positions
    cache: Any = None  # the cache after these tokens; None if there was none


@dataclasses.dataclass(frozen=True)
class Visible:
    """Which keys each query attends to, besides padding."""

    causal: bool = False  # none after its own position
    window: int = 0  # none further away than this; 0: any

    def __call__(self, mask: Bool[Array, "B _ S"], rows: Int[Array, " L"]) -> Bool[Array, "B _ S"]:
        """The mask of these queries; its middle axis stays 1 where all queries see the same."""
        keys, rows = jnp.arange(mask.shape[-1]), rows[:, None]
        if self.causal:
            mask = mask & (keys <= rows)
        return mask & (jnp.abs(keys - rows) <= self.window) if self.window else mask


class Attention(nn.Module):
    """Softmax(q k scale + bias) v with a padding mask; a row of padding alone gives the mean.

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
    window: int = 0  # the furthest position attended to; 0: any
    cross: bool = False  # keys and values are projections of a memory
    rotary: Rotary | None = None
    query_norm: float = 0.0  # epsilon of a norm of each query and key; 0: none
    scaled: bool = True  # scores are divided by sqrt(K)

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        mask: Bool[Array, "B S"] | None,
        *,
        train: bool,
        memory: Float[Array, "B S D"] | None = None,
        cache: Cache | None = None,
        cache_positions: CachePositions | None = None,
        score_bias: Float[Array, "_ H L S"] | None = None,
    ) -> tuple[Float[Array, "B L D"], BlockInternals]:
        """The output, and intermediates: weights (`plain` only), qkv, the cache after this.

        Args:
          mask: of the keys' positions; `cache_positions` stand for it where a cache has the keys
            of these tokens' own sequence.
          memory: for `cross`; needed once, a cache then has its keys and values.
          score_bias: added to the scores (T5's relative positions).
        """
        k = self.head_width or self.width // self.heads
        groups = self.kv_heads or self.heads
        own = (self.dtype, self.init_std)

        def project(source: Array, name: str, heads: int) -> Float[Array, "B H _ K"]:
            # Heads before positions: both products below are then plain batched matrix products.
            flat = Dense(heads * k, *own, self.bias, name=name)(source)
            return flat.reshape(*source.shape[:2], heads, k).swapaxes(1, 2)

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
            positions = (
                cache_positions.positions
                if cache_positions
                else token_positions(mask, 0, hidden.shape[1])
            )
            query, key = self.rotary(query, positions), self.rotary(key, positions)
        qkv = (query, key, value)
        if cache is not None:
            if not self.cross:
                key, value = (
                    write_columns(old, new, cache_positions.start)
                    for old, new in ((cache.keys, key), (cache.values, value))
                )
            cache = Cache(key, value)
        visible, rows = Visible(self.causal, self.window), jnp.arange(hidden.shape[1])
        if cache_positions:
            whole = cache_positions.attention_mask
        else:
            whole = mask[:, None, :] if self.kind == "chunked" else visible(mask[:, None, :], rows)
        scale = k**-0.5 if self.scaled else 1.0
        weights = None
        if self.kind == "plain":
            drop = Dropout(self.dropout, deterministic=not train)
            kept = drop.mask((*query.shape[:3], key.shape[2]))
            rest = dict(kept=kept, rate=self.dropout, scale=scale, score_bias=score_bias)
            context, weights = attend(query, key, value, whole, cached=cache is not None, **rest)
            rows = rows_at_a_time(*query.shape[:3], key.shape[2])
            if rows and cache is None:  # `attend` above is then left out, unless weights are used
                context = attend_by_rows(query, key, value, whole, rows, **rest)
        elif self.kind == "chunked":
            context = attend_chunked(
                query, key, value, whole, Visible() if cache_positions else visible, scale=scale,
                score_bias=score_bias,
            )  # fmt: skip
        else:
            by_position = (x.swapaxes(1, 2) for x in (query, key, value))
            context = jax.nn.dot_product_attention(
                *by_position, bias=score_bias, mask=whole[:, None], scale=scale,
                implementation=self.kind,
            ).swapaxes(1, 2)  # fmt: skip
        context = context.swapaxes(1, 2).reshape(*hidden.shape[:2], -1)
        out = Dense(self.width, *own, self.output_bias, name="output")(context)
        return out, BlockInternals(weights, qkv, context, cache=cache)


def write_columns(
    old: Float[Array, "B G S K"], new: Float[Array, "B G L K"], start: Any
) -> Float[Array, "B G S K"]:
    """`old` with `new` from position `start` on."""
    new = new.astype(old.dtype)
    if old.dtype != jnp.bfloat16 or not cpu_workarounds():
        return jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=2)
    # XLA's CPU compiler (jax 0.10.2) writes into bfloat16 by making float32 of the whole and
    # bfloat16 again, and does not where it takes them for integers.
    bits = functools.partial(jax.lax.bitcast_convert_type, new_dtype=jnp.uint16)
    updated = jax.lax.dynamic_update_slice_in_dim(bits(old), bits(new), start, axis=2)
    return jax.lax.bitcast_convert_type(updated, jnp.bfloat16)


def attend(
    query: Float[Array, "B H L K"],
    key: Float[Array, "B G S K"],
    value: Float[Array, "B G S K"],
    mask: Bool[Array, "B _ S"],
    cached: bool = False,
    scale: float | None = None,
    score_bias: Float[Array, "_ H L S"] | None = None,
    kept: Bool[Array, "B H L S"] | None = None,
    rate: float = 0.0,
) -> tuple[Float[Array, "B H L K"], Float[Array, "B H L S"]]:
    """The weighted values, and the weights (before dropout) in the dtype of the queries.

    Args:
      cached: keys and values are a cache's; nothing is differentiated.
      scale: of the products; None: 1 / sqrt(K).
      kept, rate: of dropout, applied to the weights.
    """
    heads, groups, dtype = query.shape[1], key.shape[1], query.dtype
    shape, length = query.shape, query.shape[2]
    mask = mask[:, None]
    if groups != heads:  # the queries of a group, side by side
        query = query.reshape(len(query), groups, -1, query.shape[-1])
        mask = mask[:, :, None]

    def apart(x: Array) -> Array:
        return x.reshape(*x.shape[:2], -1, length, x.shape[-1]) if groups != heads else x

    query = query * (shape[-1] ** -0.5 if scale is None else scale)
    few = cached and FEW_QUERIES * length <= key.shape[-2] and cpu_workarounds()
    if few:
        # A CPU takes half the time if keys come first, and XLA (jax 0.10.2) must not undo it.
        logits = jax.lax.optimization_barrier(scores(key, query)).swapaxes(-1, -2)
    else:
        logits = scores(query, key)
    logits = apart(logits)
    if score_bias is not None:
        # [_, H, L, S] -> [_, G, H / G, L, S] where groups share keys
        logits = logits + score_bias.reshape(-1, *logits.shape[1:])
    # Finite, so that a row of padding alone stays finite; far below any score.
    logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits).astype(dtype)
    used = weights if kept is None else dropped(weights, kept.reshape(weights.shape), rate)
    context = mixture(used.reshape(*query.shape[:3], -1), value)
    return context.reshape(*shape[:3], -1), weights.reshape(*shape[:3], -1)


def rows_at_a_time(rows: int, heads: int, length: int, keys: int) -> int:
    """How many rows' weights a CPU computes at a time in training; 0: those of all.

    Memory is then that of some rows, and more stays in the cache: a step of 32 rows of 512 holds
    0.45 of the bytes and takes about 0.9 of the time (benchmarks/long_rows.py, two cores of a Xeon
    with AMX). One row at a time took 1.3. A GPU has its own kernels for long rows (KINDS).
    """
    few = length * keys < LONG or not cpu_workarounds()
    if few or not jax.sharding.get_abstract_mesh().empty:  # devices have rows of their own there
        return 0
    most = ROWS if 4 * ROWS * heads * length * keys <= ROWS_BYTES else ROWS // 2
    return next((n for n in range(most, 1, -1) if rows % n == 0 and n < rows), 0)


def attend_by_rows(
    query: Float[Array, "B H L K"],
    key: Float[Array, "B G S K"],
    value: Float[Array, "B G S K"],
    mask: Bool[Array, "B _ S"],
    rows: int,
    *,
    scale: float | None,
    score_bias: Float[Array, "_ H L S"] | None,
    kept: Bool[Array, "B H L S"] | None,
    rate: float,
) -> Float[Array, "B H L K"]:
    """The weighted values of `attend`, some rows at a time, the same numbers.

    The backward pass computes weights again.
    """
    batch = len(query)

    def cut(x: Array | None) -> Array | None:
        if x is None or len(x) != batch:  # the same for all rows
            return None
        return x.reshape(batch // rows, rows, *x.shape[1:])

    @jax.checkpoint
    def some(part: tuple[Array | None, ...]) -> Array:
        *arrays, biases, kept = part
        bias = score_bias if biases is None else biases
        return attend(*arrays, scale=scale, score_bias=bias, kept=kept, rate=rate)[0]

    parts = jax.lax.map(some, tuple(map(cut, (query, key, value, mask, score_bias, kept))))
    return parts.reshape(*query.shape[:3], -1)


def attend_chunked(
    query: Float[Array, "B H L K"],
    key: Float[Array, "B G S K"],
    value: Float[Array, "B G S K"],
    mask: Bool[Array, "B _ S"],
    visible: Visible = Visible(),
    scale: float | None = None,
    score_bias: Float[Array, "_ H L S"] | None = None,
) -> Float[Array, "B H L K"]:
    """`attend` for CHUNK queries at a time; the weights are not kept for the backward pass.

    Each chunk makes its own rows of the triangle or band of `visible`, so nothing here grows with
    the square of the length, except a `score_bias`.

    Source: Rabe and Staats (2021), arXiv:2112.05682, with whole rows of keys.
    """
    length = query.shape[2]
    count = -(-length // CHUNK)
    size = -(-length // count)

    def cut(x: Array, axis: int) -> Array:
        widths = [(0, count * size - length if i == axis else 0) for i in range(x.ndim)]
        x = jnp.pad(x, widths)
        return jnp.moveaxis(x.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :]), axis, 0)

    @jax.checkpoint
    def one(chunk: tuple[Array, Array, Array | None, Array | None]) -> Array:
        queries, index, masks, biases = chunk
        masks = visible(mask if masks is None else masks, index * size + jnp.arange(size))
        return attend(queries, key, value, masks, scale=scale, score_bias=biases)[0]

    masks = None if mask.shape[1] == 1 else cut(mask, 1)
    biases = None if score_bias is None else cut(score_bias, 2)
    chunks = (cut(query, 2), jnp.arange(count), masks, biases)
    context = jnp.moveaxis(jax.lax.map(one, chunks), 0, 2)
    return context.reshape(*query.shape[:2], count * size, -1)[:, :, :length]
