"""Encoder-decoders: the blocks of one list encode, those of the other decode with cross-attention.

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
from jaxkd.models.attention import Attention, BlockInternals, Cache, gather_columns
from jaxkd.models.cache_positions import CachePositions
from jaxkd.models.dropout import Dropout
from jaxkd.models.feed_forward import FeedForward
from jaxkd.models.model import Model
from jaxkd.models.norms import layer_norm


@dataclasses.dataclass
class Config(config.Config):
    """An encoder-decoder's shape; fields that do not say encoder are the decoder's."""

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

    family: ClassVar[str] = "seq2seq"
    known_heads: ClassVar[Mapping[str, Any]] = heads.SEQ2SEQ
    one_list: ClassVar[bool] = False
    positions: ClassVar[str] = "learned"  # sinusoidal, none
    position_offset: ClassVar[int] = 0  # unused first rows of the position embedding
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
            return jnp.zeros((rows, self.heads, length, self.key_width), self.dtype)

        own, cross = zeros(room), zeros(memory)
        return Cache(own, own), Cache(cross, cross)

    def reorder_cache(
        self, cache: tuple[Any, Cache], parents: Int[Array, "B K"]
    ) -> tuple[Any, Cache]:
        """The cache once beam k continues beam parents[k]: masks tell the beams' columns apart."""
        return cache

    def gather_columns(
        self, cache: tuple[Any, Cache], columns: Int[Array, "B C"]
    ) -> tuple[Any, Cache]:
        """The cache with these columns of the decoder's tokens; the encoder's all stay."""
        own, cross = cache
        return gather_columns(own, columns), cross


def sinusoids(length: int, width: int) -> Float[np.ndarray, "L D"]:
    """Sines in the first half of the dimensions, cosines in the second (Marian's order)."""
    pair = np.arange((width + 1) // 2)
    angle = np.arange(length)[:, None] / 10000.0 ** (2 * pair / width)
    return np.concatenate([np.sin(angle), np.cos(angle[:, : width // 2])], 1).astype(np.float32)


class Embed(nn.Module):
    """Token and position, of the encoder or of the decoder."""

    config: Config
    encodes: bool = False

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"] | None,
        segments: None = None,
        *,
        train: bool = False,
        cache_positions: CachePositions | None = None,
        token: Float[Array, "V D"] | None = None,  # the decoder's table, for the encoder to share
    ) -> tuple[Float[Array, "B L D"], dict]:
        c = self.config
        init = nn.initializers.truncated_normal(c.init_std)
        if not self.encodes:
            token = self.param("token", init, (c.vocabulary, c.width))
        elif c.source_vocabulary:
            token = self.param("token", init, (c.source_vocabulary, c.width))
        hidden = token[tokens] * (math.sqrt(c.width) if c.scaled_embedding else 1.0)
        if c.positions != "none":
            if cache_positions is None:
                c.check_length(tokens.shape[1])
            if c.positions == "learned":
                rows = c.max_length + c.position_offset
                table = self.param("position", init, (rows, c.width))[c.position_offset :]
            else:
                table = jnp.asarray(sinusoids(c.max_length, c.width))
            hidden = hidden + (
                table[cache_positions.positions] if cache_positions else table[: tokens.shape[1]]
            )
        if c.embedding_norm:
            hidden = layer_norm(c.norm_epsilon, jnp.float32, "norm")(hidden)
        return Dropout(c.dropout, deterministic=not train)(hidden.astype(c.dtype)), {}


class Block(nn.Module):
    """Self-attention, cross-attention to the encoder's states, feed-forward; each normalised."""

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
        cache_positions: CachePositions | None = None,
    ) -> tuple[Float[Array, "B T D"], BlockInternals]:
        """`memory` is needed once: a cache then has its keys and values. With a cache,
        `cache_positions` stand for the mask."""
        c = self.config
        drop = Dropout(c.dropout, deterministic=not train)

        def attention(name: str, **kind: Any) -> Attention:
            return Attention(
                c.width, c.heads, c.attention_dropout, c.init_std, c.dtype, c.attention,
                name=name, **kind,
            )  # fmt: skip

        def add(x: Float[Array, "B T D"], name: str) -> Float[Array, "B T D"]:
            return layer_norm(c.norm_epsilon, c.dtype, name)(hidden + drop(x))

        own, cross = cache or (None, None)
        out, inside = attention("attention", causal=True)(
            hidden, mask, train=train, cache=own, cache_positions=cache_positions
        )
        hidden = add(out, "attention_norm")
        out, across = attention("cross", cross=True)(
            hidden, memory_mask, train=train, cache=cross, memory=memory
        )
        hidden = add(out, "cross_norm")
        out, channels = FeedForward(
            c.width, c.feed_forward, c.activation, c.init_std, c.dtype,
            dropout=c.activation_dropout, name="feed_forward",
        )(hidden, train)  # fmt: skip
        hidden = add(out, "norm")
        caches = None if cache is None else (inside.cache, across.cache)
        return hidden, dataclasses.replace(
            inside, cross=across.attention, ffn_activations=channels, cache=caches
        )


def build(
    config: Config,
    encoder_block: Any = bert.Block,
    decoder_block: Any = Block,
    *,
    embed: Any = Embed,
    encoder_head: Any = None,
) -> Model:
    """An encoder and a decoder of these modules, each block of its own shape (`config.block`).

    Args:
      encoder_head: what the encoder's last states go through; None: nothing.
    """
    config.check()
    config = dataclasses.replace(config)  # modules keep it: later changes must not reach them
    inner, scan = config.encoder(), config.scan_layers
    blocks = tuple(encoder_block(inner.block(i)) for i in range(inner.layers))
    heads = {} if encoder_head is None else {"head": encoder_head(inner)}
    encoder = Model(embed(inner, encodes=True), blocks, heads, scan=scan)
    blocks = tuple(decoder_block(config.block(i)) for i in range(config.layers))
    heads = {"head": config.known_heads[config.head](config)}
    return Model(embed(config), blocks, heads, scan=scan, encoder=encoder)
