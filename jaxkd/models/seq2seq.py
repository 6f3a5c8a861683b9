"""Encoder-decoders: one list of blocks reads, another writes and looks at what was read.

Marian and BART are this Transformer with other values (marian.py, bart.py); lstm.py has other
blocks under the same embedding and head. Params: see models/model.py.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxkd.models import bert, config, heads
from jaxkd.models.attention import Attention, BlockInternals, Cache, take_columns
from jaxkd.models.cache_positions import CachePositions
from jaxkd.models.feed_forward import FeedForward
from jaxkd.models.model import Model


@dataclasses.dataclass
class Config(config.Config):
    """An encoder-decoder's shape; what does not say encoder is the decoder's."""

    layers: int = 6
    encoder_layers: int = 6
    encoder_heads: int = 0  # 0: as the decoder's
    encoder_feed_forward: int = 0  # 0: as the decoder's
    source_vocabulary: int = 0  # 0: one vocabulary and one embedding for both
    norm_epsilon: float = 1e-5
    attention_dropout: float = 0.0
    scaled_embedding: bool = False  # token vectors times sqrt(width)
    start: int = 0  # token the decoder begins with
    end: int = 1  # token it ends with
    head: str = "seq2seq_lm"

    known_heads: ClassVar[Mapping[str, Any]] = heads.SEQ2SEQ
    positions: ClassVar[str] = "learned"  # sinusoidal, none
    position_offset: ClassVar[int] = 0  # rows of the position embedding that nothing uses
    embedding_norm: ClassVar[bool] = False
    dropout_after: ClassVar[tuple[str, ...]] = ("attention", "feed_forward")

    def encoder(self) -> "Config":
        """The shape of the encoder's blocks."""
        return dataclasses.replace(
            self,
            layers=self.encoder_layers,
            heads=self.encoder_heads or self.heads,
            feed_forward=self.encoder_feed_forward or self.feed_forward,
            encoder_heads=0,
            encoder_feed_forward=0,
        )

    def check(self) -> None:
        super().check()
        if self.encoder_layers < 1:
            raise ValueError(
                f"{self.family}: encoder_layers is {self.encoder_layers}; it must be at least 1."
            )
        self.encoder().check_heads()

    def cache(self, rows: int, room: int, memory: int) -> tuple[Any, Cache]:
        """Empty caches of one block: for `room` positions of its own, `memory` of the encoder's."""

        def zeros(length: int) -> Float[Array, "B H S K"]:
            return jnp.zeros((rows, self.heads, length, self.width // self.heads), self.dtype)

        own, read = zeros(room), zeros(memory)
        return Cache(own, own), Cache(read, read)

    def follow(self, cache: tuple[Any, Cache], parents: Int[Array, "B K"]) -> tuple[Any, Cache]:
        """The cache once beam k goes on from beam parents[k]: columns are told apart by masks."""
        return cache

    def take(self, cache: tuple[Any, Cache], columns: Int[Array, "B C"]) -> tuple[Any, Cache]:
        """The cache with these columns of what was written alone; all that was read stays."""
        own, read = cache
        return take_columns(own, columns), read


def sinusoids(length: int, width: int) -> Float[np.ndarray, "L D"]:
    """Sines in the first half of the dimensions, cosines in the second (Marian's order)."""
    pair = np.arange((width + 1) // 2)
    angle = np.arange(length)[:, None] / 10000.0 ** (2 * pair / width)
    return np.concatenate([np.sin(angle), np.cos(angle[:, : width // 2])], 1).astype(np.float32)


class Embed(nn.Module):
    """Token and position of the side that reads or of the one that writes."""

    config: Config
    reads: bool = False

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"] | None,
        segments: None = None,
        *,
        train: bool = False,
        places: CachePositions | None = None,
        token: Float[Array, "V D"] | None = None,  # the writer's table, for the reader to share
    ) -> Float[Array, "B L D"]:
        c = self.config
        init = nn.initializers.truncated_normal(c.init_std)
        if not self.reads:
            token = self.param("token", init, (c.vocabulary, c.width))
        elif c.source_vocabulary:
            token = self.param("token", init, (c.source_vocabulary, c.width))
        hidden = token[tokens] * (math.sqrt(c.width) if c.scaled_embedding else 1.0)
        if c.positions != "none":
            if places is None:
                c.check_length(tokens.shape[1])
            if c.positions == "learned":
                rows = c.max_length + c.position_offset
                table = self.param("position", init, (rows, c.width))[c.position_offset :]
            else:
                table = jnp.asarray(sinusoids(c.max_length, c.width))
            hidden = hidden + (table[places.positions] if places else table[: tokens.shape[1]])
        if c.embedding_norm:
            hidden = nn.LayerNorm(c.norm_epsilon, name="norm")(hidden)
        return nn.Dropout(c.dropout, deterministic=not train)(hidden.astype(c.dtype))


class Block(nn.Module):
    """Attention to what was written, then to what was read, then feed-forward; each normalised."""

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
        cache: tuple[Cache, Cache] | None = None,
        places: CachePositions | None = None,
    ) -> tuple[Float[Array, "B T D"], BlockInternals]:
        """`memory` is needed once: a cache then has its keys and values. With a cache, `places`
        stand for the mask."""
        c = self.config
        drop = nn.Dropout(c.dropout, deterministic=not train)

        def attend(name: str, mask: Array | None, cache: Cache | None, **more: Any) -> Any:
            given = {k: more.pop(k) for k in ("memory", "places") if k in more}
            return Attention(
                c.width, c.heads, c.attention_dropout, c.init_std, c.dtype, c.attention,
                name=name, **more,
            )(hidden, mask, train=train, cache=cache, **given)  # fmt: skip

        def add(x: Float[Array, "B T D"], name: str) -> Float[Array, "B T D"]:
            return nn.LayerNorm(c.norm_epsilon, dtype=c.dtype, name=name)(hidden + drop(x))

        own, read = cache or (None, None)
        mixed, own = attend("attention", mask, own, causal=True, places=places)
        hidden = add(mixed, "attention_norm")
        mixed, read = attend("cross", memory_mask, read, cross=True, memory=memory)
        hidden = add(mixed, "cross_norm")
        inner, channels = FeedForward(
            c.width, c.feed_forward, c.activation, c.init_std, c.dtype,
            dropout=c.activation_dropout, name="feed_forward",
        )(hidden, train)  # fmt: skip
        hidden = add(inner, "norm")
        caches = None if cache is None else (own.cache, read.cache)
        return hidden, dataclasses.replace(
            own, cross=read.attention, ffn_activations=channels, cache=caches
        )


def build(config: Config, reader: Any = bert.Block, writer: Any = Block) -> Model:
    """An encoder of `reader` blocks and a decoder of `writer` blocks."""
    config.check()
    config = dataclasses.replace(config)  # modules keep it: later changes must not reach them
    inner, scan = config.encoder(), config.scan_layers
    encoder = Model(Embed(inner, reads=True), reader(inner), None, inner.layers, scan=scan)
    head = config.known_heads[config.head](config)
    return Model(Embed(config), writer(config), head, config.layers, scan=scan, encoder=encoder)
