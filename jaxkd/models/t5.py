"""T5 (Raffel et al., 2020, arXiv:1910.10683), T5 1.1 and FLAN-T5: positions are relative.

A bias for the distance of query and key, one for each head, is computed once and added to the
scores of all blocks of a side; scores are not divided by the root of the heads' width.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxkd.core.outputs import Projection
from jaxkd.models import seq2seq
from jaxkd.models.attention import Attention, BlockInternals, Cache
from jaxkd.models.cache_positions import CachePositions
from jaxkd.models.dropout import Dropout
from jaxkd.models.feed_forward import FeedForward
from jaxkd.models.heads import VocabularyHead
from jaxkd.models.model import Model


class FinalNorm(nn.Module):
    """The head of the encoder's list: a norm and dropout."""

    config: Any

    @nn.compact
    def __call__(self, hidden: Array, token: Array, mask: Array, *, train: bool = False) -> Array:
        c = self.config
        return Dropout(c.dropout, deterministic=not train)(c.norm("norm")(hidden))


class LmHead(VocabularyHead):
    """A norm, then the token embedding or a matrix of its own."""

    @nn.compact
    def project(
        self, hidden: Float[Array, "*B D"], token: Float[Array, "V D"], *, train: bool = False
    ) -> Projection:
        c = self.config
        hidden = Dropout(c.dropout, deterministic=not train)(c.norm("norm")(hidden))
        if not c.tied:
            init = nn.initializers.truncated_normal(c.init_std)
            token = self.param("output", init, (c.vocabulary, c.width))
        return Projection(hidden * c.width**-0.5 if c.scaled_output else hidden, token)


@dataclasses.dataclass
class Config(seq2seq.Config):
    """A T5's shape. The defaults are t5-small."""

    vocabulary: int = 32128
    width: int = 512
    heads: int = 8
    head_width: int = 64  # heads x head_width may differ from the width
    feed_forward: int = 2048
    activation: str = "relu"
    gated: bool = False  # of the feed-forward; True in T5 1.1 and FLAN-T5
    tied: bool = True  # the head is the token embedding; False in T5 1.1 and FLAN-T5
    scaled_output: bool = True  # the head's input is divided by sqrt(width); so where it is tied
    norm_epsilon: float = 1e-6
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    max_length: int = 1_000_000  # relative positions do not run out
    buckets: int = 32  # of distances
    max_distance: int = 128  # from here on all distances share a bucket
    start: int = 0
    end: int = 1

    family: ClassVar[str] = "t5"
    known_heads: ClassVar[Mapping[str, Any]] = {"seq2seq_lm": LmHead}

    @property
    def key_width(self) -> int:
        return self.head_width

    def norm(self, name: str) -> nn.RMSNorm:
        return nn.RMSNorm(self.norm_epsilon, dtype=self.dtype, name=name)

    def check(self) -> None:
        super().check()
        if self.buckets < 4 or self.buckets % 4 or self.max_distance <= self.buckets // 2:
            raise ValueError(
                f"t5: buckets is {self.buckets} and max_distance {self.max_distance}; the first is "
                "a multiple of 4, the second above half of it."
            )

    def check_heads(self) -> None:
        if self.head_width < 1:
            raise ValueError(f"t5: head_width is {self.head_width}; it must be at least 1.")


def bucket(
    distance: Int[Array, "*B"], buckets: int, max_distance: int, *, both_sides: bool
) -> Int[Array, "*B"]:
    """The bucket of key position - query position: near ones each their own, far ones shared.

    Half of the buckets are for single distances, half grow logarithmically up to `max_distance`.
    With `both_sides` the later half of all buckets is for keys after the query; else those keys
    count as distance 0.
    """
    sides = 2 if both_sides else 1
    each = buckets // sides
    exact = each // 2
    far = np.arange(exact, max_distance + 1, dtype=np.float32) / np.float32(exact)
    share = np.log(far) / np.float32(math.log(max_distance / exact))
    shared = np.minimum(exact + (share * np.float32(each - exact)).astype(np.int32), each - 1)
    table = jnp.asarray(np.concatenate([np.arange(exact), shared]))
    size = jnp.abs(distance) if both_sides else jnp.maximum(-distance, 0)
    later = (distance > 0) * each if both_sides else 0
    return table[jnp.minimum(size, max_distance)] + later


class Embed(nn.Module):
    """The token's vector, and for every block the bias of its scores by distance."""

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
    ) -> tuple[Float[Array, "B L D"], dict[str, Array]]:
        c = self.config
        init = nn.initializers.truncated_normal(c.init_std)
        if not self.encodes:
            token = self.param("token", init, (c.vocabulary, c.width))
        if cache_positions:
            query = cache_positions.positions[..., None]  # [B, L, 1]
            distance = cache_positions.column_positions - query
        else:
            every = jnp.arange(tokens.shape[1])
            distance = (every - every[:, None])[None]  # [1, L, L]
        bias = self.param("relative", init, (c.buckets, c.heads))[
            bucket(distance, c.buckets, c.max_distance, both_sides=self.encodes)
        ]
        hidden = Dropout(c.dropout, deterministic=not train)(token[tokens].astype(c.dtype))
        return hidden, {"score_bias": jnp.moveaxis(bias, -1, 1)}


class Block(nn.Module):
    """Self-attention, in the decoder cross-attention, feed-forward: each x + f(norm(x))."""

    config: Config
    causal: bool = False

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        mask: Bool[Array, "B L"] | None,
        *,
        score_bias: Float[Array, "_ H L S"],
        memory: Float[Array, "B M D"] | None = None,
        memory_mask: Bool[Array, "B M"] | None = None,
        train: bool = False,
        cache: tuple[Cache, Cache] | None = None,
        cache_positions: CachePositions | None = None,
    ) -> tuple[Float[Array, "B L D"], BlockInternals]:
        """Arguments as of `seq2seq.Block`; an encoder's has no memory."""
        c = self.config
        drop = Dropout(c.dropout, deterministic=not train)

        def attention(name: str, **kind: Any) -> Attention:
            return Attention(
                c.width, c.heads, c.attention_dropout, c.init_std, c.dtype, c.attention,
                head_width=c.head_width, bias=False, output_bias=False, scaled=False, name=name,
                **kind,
            )  # fmt: skip

        own, cross = cache or (None, None)
        out, inside = attention("attention", causal=self.causal)(
            c.norm("attention_norm")(hidden), mask, train=train, cache=own,
            cache_positions=cache_positions, score_bias=score_bias,
        )  # fmt: skip
        hidden = hidden + drop(out)
        if memory_mask is not None:
            out, across = attention("cross", cross=True)(
                c.norm("cross_norm")(hidden), memory_mask, train=train, memory=memory, cache=cross
            )
            hidden = hidden + drop(out)
            caches = None if cache is None else (inside.cache, across.cache)
            inside = dataclasses.replace(inside, cross=across.attention, cache=caches)
        out, channels = FeedForward(
            c.width, c.feed_forward, c.activation, c.init_std, c.dtype, gated=c.gated, bias=False,
            dropout=c.activation_dropout, name="feed_forward",
        )(c.norm("norm")(hidden), train)  # fmt: skip
        return hidden + drop(out), dataclasses.replace(inside, ffn_activations=channels)


def build(config: Config) -> Model:
    """A T5: both sides are lists of one kind of block, and the encoder ends with a norm."""
    decoder = functools.partial(Block, causal=True)
    return seq2seq.build(config, Block, decoder, embed=Embed, encoder_head=FinalNorm)
