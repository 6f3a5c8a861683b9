"""ModernBERT (Warner et al., 2024, arXiv:2412.13663): most blocks attend to near positions only.

Every third block attends to all positions, the others to a window around each; both turn queries
and keys (rotary embeddings), by frequencies of their own. Blocks normalise their input, except
the first, which gets it normalised. Ettin's encoders are ModernBERTs.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxkd.core.outputs import Projection
from jaxkd.models import bert, config
from jaxkd.models.activations import activation
from jaxkd.models.attention import Attention, BlockInternals
from jaxkd.models.dense import Dense
from jaxkd.models.dropout import Dropout
from jaxkd.models.feed_forward import FeedForward
from jaxkd.models.heads import VocabularyHead
from jaxkd.models.model import Model, mean_of_tokens
from jaxkd.models.norms import layer_norm
from jaxkd.models.rotary import Rotary, check_head_width

LAYER_TYPES = ("global", "local")


class Head(nn.Module):
    """The last norm; heads that predict add a hidden layer."""

    config: Any

    def final(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return self.config.norm("final_norm")(hidden)

    def transform(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        c = self.config
        hidden = Dense(c.width, c.dtype, c.init_std, c.classifier_bias, name="transform")(hidden)
        return c.norm("norm")(activation(c.head_activation)(hidden))

    def classify(self, hidden: Float[Array, "*B D"], train: bool) -> Float[Array, "*B C"]:
        c = self.config
        hidden = Dropout(c.classifier_dropout, deterministic=not train)(self.transform(hidden))
        scores = Dense(len(c.labels), c.dtype, c.init_std, name="classify")(hidden)
        return scores.astype(jnp.float32)


class MaskedLmHead(VocabularyHead, Head):
    """Transform, and the transposed token embedding plus a bias."""

    @nn.compact
    def project(
        self, hidden: Float[Array, "*B D"], token: Float[Array, "V D"], *, train: bool = False
    ) -> Projection:
        c = self.config
        hidden = self.transform(self.final(hidden))
        zeros = nn.initializers.zeros_init()
        return Projection(
            hidden, token, self.param("bias", zeros, (c.vocabulary,)) if c.decoder_bias else None
        )


class SequenceHead(Head):
    """Scores of a whole sequence, [B, C] float32, from its first token or the mean of all."""

    @nn.compact
    def __call__(
        self, hidden: Array, token: Array, mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B C"]:
        hidden = self.final(hidden)
        if self.config.classifier_pooling == "cls":
            return self.classify(hidden[:, 0], train)
        return self.classify(mean_of_tokens(hidden, mask), train)


class TokenHead(Head):
    """Scores of every token, [B, L, C] float32."""

    @nn.compact
    def __call__(self, hidden: Array, token: Array, mask: Array, *, train: bool = False) -> Array:
        return self.classify(self.final(hidden), train)


class BareHead(Head):
    """No predictions: the hidden states after the last norm."""

    @nn.compact
    def __call__(self, hidden: Array, token: Array, mask: Array, *, train: bool = False) -> Array:
        return self.final(hidden)


@dataclasses.dataclass
class Config(config.Config):
    """A ModernBERT's shape. The defaults are ModernBERT-base."""

    vocabulary: int = 50368
    layers: int = 22
    feed_forward: int = 1152
    max_length: int = 8192
    dropout: float = 0.0  # of the embeddings
    attention_dropout: float = 0.0  # of the attention weights, and of the attention's output
    classifier_dropout: float = 0.0
    norm_epsilon: float = 1e-5
    pad: int = 50283
    head: str = "masked_lm"
    global_every: int = 3  # blocks 0, 3, 6 ... are global
    layer_types: tuple[str, ...] = ()  # "global" or "local" for each block; empty: `global_every`
    window: int = 64  # positions to each side that a local block attends to
    rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    norm_bias: bool = False
    attention_bias: bool = False
    feed_forward_bias: bool = False
    classifier_bias: bool = False
    decoder_bias: bool = True
    classifier_pooling: str = "cls"  # or "mean", of a sequence classifier
    head_activation: str = "gelu"
    attention_norm: bool = True  # of one block; the first has none

    family: ClassVar[str] = "modernbert"
    known_heads: ClassVar[Mapping[str, Any]] = {
        "masked_lm": MaskedLmHead,
        "sequence_classification": SequenceHead,
        "token_classification": TokenHead,
        "bare": BareHead,
    }

    @property
    def types(self) -> tuple[str, ...]:
        """Global or local: "global" or "local" for each block."""
        by_number = ("local" if i % self.global_every else "global" for i in range(self.layers))
        return self.layer_types or tuple(by_number)

    def block(self, i: int) -> "Config":
        local = self.types[i] == "local"
        return dataclasses.replace(
            super().block(i),
            layer_types=(),
            window=self.window if local else 0,
            rope_theta=self.local_rope_theta if local else self.rope_theta,
            attention_norm=i > 0,
        )

    def keep(self, blocks: Sequence[int]) -> "Config":
        blocks = list(blocks)
        if blocks[0] != 0:
            raise ValueError(
                f"modernbert: the first of the blocks {blocks} is {blocks[0]}; the first block of "
                "a ModernBERT has no attention norm, and only block 0 was trained so. Keep it."
            )
        kept = dataclasses.replace(super().keep(blocks), layer_types=())
        own = self.types + kept.types[self.layers :]  # further blocks go on as the family does
        types = tuple(own[i] for i in blocks)
        return dataclasses.replace(kept, layer_types=() if types == kept.types else types)

    def norm(self, name: str) -> nn.LayerNorm:
        return layer_norm(self.norm_epsilon, self.dtype, name, bias=self.norm_bias)

    def check(self) -> None:
        super().check()
        check_head_width(self.family, self.key_width)
        self.one_of("classifier_pooling", ("cls", "mean"))
        if self.global_every < 1 or self.window < 1:
            raise ValueError(
                f"modernbert: global_every is {self.global_every} and window {self.window}; both "
                "are at least 1."
            )
        if self.layer_types and (
            len(self.layer_types) != self.layers or set(self.layer_types) - set(LAYER_TYPES)
        ):
            raise ValueError(
                f"modernbert: layer_types is {self.layer_types}; it has 'global' or 'local' for "
                f"each of the {self.layers} blocks, or is empty."
            )


class Embed(nn.Module):
    """The token's vector, normalised; positions are the attention's."""

    config: Config

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"],
        segments: Int[Array, "B L"] | None = None,
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "B L D"], dict]:
        c = self.config
        c.check_length(tokens.shape[1])
        init = nn.initializers.truncated_normal(c.init_std)
        hidden = c.norm("norm")(self.param("token", init, (c.vocabulary, c.width))[tokens])
        return Dropout(c.dropout, deterministic=not train)(hidden), {}


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)), gated."""

    config: Config  # of this block: Config.block(i)

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> tuple[Float[Array, "B L D"], BlockInternals]:
        c = self.config
        normed = c.norm("attention_norm")(hidden) if c.attention_norm else hidden
        out, inside = Attention(
            c.width, c.heads, c.attention_dropout, c.init_std, c.dtype, c.attention,
            bias=c.attention_bias, output_bias=c.attention_bias, window=c.window,
            rotary=Rotary(c.key_width, c.rope_theta), name="attention",
        )(normed, mask, train=train)  # fmt: skip
        hidden = hidden + Dropout(c.attention_dropout, deterministic=not train)(out)
        out, channels = FeedForward(
            c.width, c.feed_forward, c.activation, c.init_std, c.dtype, gated=True,
            bias=c.feed_forward_bias, dropout=c.activation_dropout, name="feed_forward",
        )(c.norm("norm")(hidden), train)  # fmt: skip
        return hidden + out, dataclasses.replace(inside, ffn_activations=channels)


def build(config: Config) -> Model:
    """A ModernBERT, each block local or global."""
    return bert.build(config, Embed, Block)
