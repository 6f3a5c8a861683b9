"""LSTM encoder-decoder with attention: bidirectional layers encode, one-directional ones decode.

Source: Bahdanau, Cho, Bengio (2015) and Luong, Pham, Manning (2015), with residual connections
(Wu et al., 2016), so that layers can be dropped and pruned like any block.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxkd.models import seq2seq
from jaxkd.models.attention import Attention, BlockInternals, Cache
from jaxkd.models.cache_positions import CachePositions
from jaxkd.models.dense import Dense
from jaxkd.models.dropout import Dropout
from jaxkd.models.model import Model


@dataclasses.dataclass
class Config(seq2seq.Config):
    """An LSTM's shape. `heads` are of the cross-attention; there is no feed-forward."""

    layers: int = 2
    encoder_layers: int = 2
    width: int = 512  # of each layer; the encoder's two directions have half each
    heads: int = 1
    max_length: int = 1_000_000  # an LSTM has no positions to run out of

    family: ClassVar[str] = "lstm"
    positions: ClassVar[str] = "none"

    def check(self) -> None:
        super().check()
        if self.width % 2:
            raise ValueError(f"lstm: width {self.width} is odd; its two directions share it.")

    def cache(self, rows: int, room: int, memory: int) -> tuple[Any, Cache]:
        """A layer's state before the first token, and an empty cache of `memory` positions."""
        state = jnp.zeros((rows, self.width), jnp.float32)
        return (state, state), super().cache(rows, 0, memory)[1]

    def reorder_cache(
        self, cache: tuple[Any, Cache], parents: Int[Array, "B K"]
    ) -> tuple[Any, Cache]:
        """The states once beam k continues beam parents[k], a row's beams one after another."""

        def chosen(state: Float[Array, "N W"]) -> Float[Array, "M W"]:
            of_row = state.reshape(len(parents), -1, self.width)
            return jnp.take_along_axis(of_row, parents[..., None], axis=1).reshape(-1, self.width)

        state, cross = cache
        return (chosen(state[0]), chosen(state[1])), cross

    def gather_columns(
        self, cache: tuple[Any, Cache], columns: Int[Array, "B C"]
    ) -> tuple[Any, Cache]:
        """The same: an LSTM keeps no columns of its own tokens."""
        return cache


class Lstm(nn.Module):
    """One layer in one direction; padding leaves its state as it is."""

    width: int
    init_std: float
    dtype: Any
    reverse: bool = False

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        mask: Bool[Array, "B L"],
        state: tuple[Float[Array, "B W"], Float[Array, "B W"]] | None = None,
    ) -> tuple[Float[Array, "B L W"], tuple[Float[Array, "B W"], Float[Array, "B W"]]]:
        """Outputs, and (hidden, cell) after the last step; gates in torch's order i, f, g, o."""
        init = nn.initializers.truncated_normal(self.init_std)
        inner, outer = ((hidden.shape[-1], 4 * self.width), (self.width, 4 * self.width))
        # All steps' products with the input at once; only the recurrence is step by step.
        driven = Dense(inner[1], self.dtype, self.init_std, name="input")(hidden)
        # In float32: a step's products are small, and a CPU pays more for making them bfloat16 than
        # for multiplying (256 steps of 64 rows, 128 wide, forward and backward, on one core of a
        # Xeon with AMX: 0.40 s and 0.16, median of 7). And a scan adds the matrix's gradient up in
        # the matrix's own type: in bfloat16 its product with the matrix was 12.0 instead of 13.2.
        kernel = self.param("recurrent", init, outer)
        if state is None:
            state = (jnp.zeros((hidden.shape[0], self.width), jnp.float32),) * 2

        def step(state: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[Any, Array]:
            (h, c), (drive, counts) = state, now
            i, f, g, o = jnp.split(drive.astype(jnp.float32) + h @ kernel, 4, axis=-1)
            cell = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            new = jax.nn.sigmoid(o) * jnp.tanh(cell)
            h, c = (jnp.where(counts[:, None], a, b) for a, b in ((new, h), (cell, c)))
            return (h, c), h

        by_time = (driven.swapaxes(0, 1), mask.swapaxes(0, 1))
        state, out = jax.lax.scan(step, state, by_time, reverse=self.reverse)
        return out.swapaxes(0, 1).astype(self.dtype), state


class EncoderLayer(nn.Module):
    """An LSTM of half the width in each direction, added to its input."""

    config: Config

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> tuple[Float[Array, "B L D"], BlockInternals]:
        c = self.config
        both = [
            Lstm(c.width // 2, c.init_std, c.dtype, reverse, name=name)(hidden, mask)[0]
            for name, reverse in (("forward", False), ("backward", True))
        ]
        drop = Dropout(c.dropout, deterministic=not train)
        return hidden + drop(jnp.concatenate(both, -1)), BlockInternals()


class DecoderLayer(nn.Module):
    """An LSTM, then attention to the encoder's states, each added to its input."""

    config: Config

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B T D"],
        mask: Bool[Array, "B T"] | None,
        *,
        memory: Float[Array, "B M D"] | None,
        memory_mask: Bool[Array, "B M"],
        train: bool = False,
        cache: tuple[Any, Cache] | None = None,
        cache_positions: CachePositions | None = None,
    ) -> tuple[Float[Array, "B T D"], BlockInternals]:
        """`memory` is needed once: a cache then has its keys and values. With a cache,
        `cache_positions` stand for the mask; parallel beams each have a state of their own."""
        c = self.config
        drop = Dropout(c.dropout, deterministic=not train)
        state, cross = cache or (None, None)
        token_mask, steps = cache_positions.token_mask if cache_positions else mask, hidden
        if cache_positions and cache_positions.parallel_beams:
            token_mask, steps = token_mask.reshape(-1, 1), hidden.reshape(-1, 1, c.width)
        out, state = Lstm(c.width, c.init_std, c.dtype, name="lstm")(steps, token_mask, state)
        hidden = hidden + drop(out.reshape(hidden.shape))
        out, across = Attention(
            c.width, c.heads, c.attention_dropout, c.init_std, c.dtype, c.attention,
            cross=True, name="cross",
        )(hidden, memory_mask, train=train, memory=memory, cache=cross)  # fmt: skip
        caches = None if cache is None else (state, across.cache)
        return hidden + drop(out), BlockInternals(cross=across.attention, cache=caches)


def build(config: Config) -> Model:
    """An encoder-decoder of LSTM layers."""
    return seq2seq.build(config, EncoderLayer, DecoderLayer)
