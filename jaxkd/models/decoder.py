"""Decoders: each block normalises its input, attends to earlier positions, and adds the result.

GPT-2, Llama, Qwen2, Qwen3 and Qwen2-MoE are this embedding and block with other values: their
configs (gpt2.py, llama.py, qwen2.py, qwen3.py, qwen2_moe.py) say which. Heads are in heads.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxkd.models import config, heads
from jaxkd.models.attention import Attention, BlockInternals, Cache, gather_columns
from jaxkd.models.cache_positions import CachePositions, token_positions
from jaxkd.models.dropout import Dropout
from jaxkd.models.feed_forward import Experts, FeedForward
from jaxkd.models.model import Model
from jaxkd.models.norms import layer_norm
from jaxkd.models.rotary import KINDS, Rotary, check_head_width


@dataclasses.dataclass
class Config(config.Config):
    """A decoder's shape."""

    dropout: float = 0.0
    attention_dropout: float = 0.0
    classifier_dropout: float = 0.0
    pad: int = -1
    head: str = "causal_lm"
    kv_heads: int = 0  # each serves heads / kv_heads queries; 0: one each
    head_width: int = 0  # 0: width / heads
    tied: bool = False  # the vocabulary head is the token embedding
    rope_theta: float = 10000.0
    rope: str = "default"  # linear, llama3: see rotary.py
    rope_factor: float = 1.0
    rope_low: float = 1.0
    rope_high: float = 4.0
    rope_original: int = 8192
    attention_bias: bool = False  # of queries, keys and values
    output_bias: bool = False  # of the attention's output
    feed_forward_bias: bool = False
    experts: int = 0  # 0: one feed-forward for all tokens
    experts_per_token: int = 4
    expert_width: int = 1408
    shared_width: int = 5632
    normalise_experts: bool = False

    family: ClassVar[str] = "decoder"
    known_heads: ClassVar[Mapping[str, Any]] = heads.DECODER
    gated: ClassVar[bool] = True
    rotary: ClassVar[bool] = True  # else learned positions, added to the embedding
    query_norm: ClassVar[bool] = False
    rms_norm: ClassVar[bool] = True  # else LayerNorm

    @property
    def key_width(self) -> int:
        return self.head_width or self.width // self.heads

    def cache(self, rows: int, room: int) -> Cache:
        """An empty cache of one block, for `room` positions."""
        zeros = jnp.zeros((rows, self.kv_heads or self.heads, room, self.key_width), self.dtype)
        return Cache(zeros, zeros)

    def reorder_cache(self, cache: Cache, parents: Int[Array, "B K"]) -> Cache:
        """The cache once beam k continues beam parents[k]: masks tell the beams' columns apart."""
        return cache

    def gather_columns(self, cache: Cache, columns: Int[Array, "B C"]) -> Cache:
        """The cache with these columns of each row alone."""
        return gather_columns(cache, columns)

    def norm(self, name: str) -> nn.Module:
        if self.rms_norm:
            return nn.RMSNorm(self.norm_epsilon, dtype=self.dtype, name=name)
        return layer_norm(self.norm_epsilon, self.dtype, name)

    def check(self) -> None:
        super().check()
        self.one_of("rope", KINDS)
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(
                f"{self.family}: {self.heads} heads do not divide over kv_heads {self.kv_heads}."
            )
        if self.rotary:
            check_head_width(self.family, self.key_width)
        if self.experts and not 0 < self.experts_per_token <= self.experts:
            raise ValueError(
                f"{self.family}: experts_per_token is {self.experts_per_token}, of "
                f"{self.experts} experts."
            )

    def check_heads(self) -> None:
        if not self.head_width:
            super().check_heads()


class Embed(nn.Module):
    """The token's vector, and where positions are learned the position's."""

    config: Config

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"] | None,
        segments: Int[Array, "B L"] | None = None,
        *,
        train: bool = False,
        cache_positions: CachePositions | None = None,
    ) -> tuple[Float[Array, "B L D"], dict]:
        """`cache_positions` of a cached step stand for the mask."""
        c = self.config
        if cache_positions is None:
            c.check_length(tokens.shape[1])
        init = nn.initializers.truncated_normal(c.init_std)
        hidden = self.param("token", init, (c.vocabulary, c.width))[tokens]
        if not c.rotary:
            position = self.param("position", init, (c.max_length, c.width))
            rows = (
                cache_positions.positions
                if cache_positions
                else token_positions(mask, 0, tokens.shape[1])
            )
            hidden = hidden + position[rows]
        return Dropout(c.dropout, deterministic=not train)(hidden.astype(c.dtype)), {}


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    config: Config

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        mask: Bool[Array, "B L"] | None,
        *,
        train: bool = False,
        cache: Cache | None = None,
        cache_positions: CachePositions | None = None,
    ) -> tuple[Float[Array, "B L D"], BlockInternals]:
        """With a cache, `cache_positions` stand for the mask."""
        c = self.config
        drop = Dropout(c.dropout, deterministic=not train)
        rotary = Rotary(
            c.key_width,
            c.rope_theta,
            c.rope,
            c.rope_factor,
            c.rope_low,
            c.rope_high,
            c.rope_original,
        )
        attended, inside = Attention(
            c.width,
            c.heads,
            c.attention_dropout,
            c.init_std,
            c.dtype,
            c.attention,
            kv_heads=c.kv_heads,
            head_width=c.head_width,
            bias=c.attention_bias,
            output_bias=c.output_bias,
            causal=True,
            rotary=rotary if c.rotary else None,
            query_norm=c.norm_epsilon if c.query_norm else 0.0,
            name="attention",
        )(
            c.norm("attention_norm")(hidden),
            mask,
            train=train,
            cache=cache,
            cache_positions=cache_positions,
        )
        hidden = hidden + drop(attended)
        out = c.norm("norm")(hidden)
        if c.experts:
            out = Experts(
                c.width,
                c.expert_width,
                c.shared_width,
                c.experts,
                c.experts_per_token,
                c.normalise_experts,
                c.activation,
                c.init_std,
                c.dtype,
                name="experts",
            )(out)
        else:
            out, channels = FeedForward(
                c.width,
                c.feed_forward,
                c.activation,
                c.init_std,
                c.dtype,
                gated=c.gated,
                bias=c.feed_forward_bias,
                name="feed_forward",
            )(out)
            inside = dataclasses.replace(inside, ffn_activations=channels)
        return hidden + drop(out), inside


def build(config: Config) -> Model:
    """A decoder, each block of its own shape (`config.block`)."""
    config.check()
    config = dataclasses.replace(config)  # modules keep it: later changes must not reach them
    blocks = tuple(Block(config.block(i)) for i in range(config.layers))
    heads = {"head": config.known_heads[config.head](config)}
    return Model(Embed(config), blocks, heads, scan=config.scan_layers)
