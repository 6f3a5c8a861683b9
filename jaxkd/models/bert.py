"""BERT (Devlin et al., 2018), and what the encoders that came of it share with it.

DistilBERT, RoBERTa and ALBERT are the same embedding and block with other values: their configs
(distilbert.py, roberta.py, albert.py) say which. Heads are in heads.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxkd.models import config, heads
from jaxkd.models.attention import Attention, BlockInternals
from jaxkd.models.dense import Dense
from jaxkd.models.feed_forward import FeedForward
from jaxkd.models.model import Model

POSITIONS = ("absolute",)


@dataclasses.dataclass
class Config(config.Config):
    """A BERT's shape. The defaults are bert-base-uncased."""

    position: str = "absolute"  # learned, one vector a position
    segments: int = 2  # sentence A and B; 0: no such embedding
    head: str = "masked_lm"

    known_heads: ClassVar[Mapping[str, Any]] = heads.ENCODER
    head_activation: ClassVar[str] = ""  # of the masked-LM head; empty: `activation`
    pooled: ClassVar[bool] = True  # the bare model has a pooler
    pool_activation: ClassVar[str] = "tanh"  # between a sequence classifier's two layers
    dropout_before_pool: ClassVar[bool] = False
    dropout_after: ClassVar[tuple[str, ...]] = ("attention", "feed_forward")
    positions_follow_padding: ClassVar[bool] = False  # count tokens, from pad + 1
    factorised: ClassVar[bool] = False  # embeddings of another width, projected to the model's

    @property
    def positions_for_tokens(self) -> int:
        """RoBERTa's first positions are for padding."""
        return self.max_length - (self.pad + 1 if self.positions_follow_padding else 0)

    @property
    def embedding(self) -> int:
        """Width of the token embedding."""
        return self.width

    def check(self) -> None:
        super().check()
        self.one_of("position", POSITIONS)


class Embed(nn.Module):
    """Token + position + segment, normalised; projected where the model is wider."""

    config: Config

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"],
        segments: Int[Array, "B L"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B L D"]:
        c = self.config
        init = nn.initializers.truncated_normal(c.init_std)
        c.check_length(tokens.shape[1])
        token = self.param("token", init, (c.vocabulary, c.embedding))
        position = self.param("position", init, (c.max_length, c.embedding))
        if c.positions_follow_padding:
            hidden = token[tokens] + position[jnp.cumsum(mask, axis=1) * mask + c.pad]
        else:
            hidden = token[tokens] + position[: tokens.shape[1]]
        if c.segments:
            segment = self.param("segment", init, (c.segments, c.embedding))
            hidden = hidden + (segment[0] if segments is None else segment[segments])
        hidden = nn.LayerNorm(c.norm_epsilon, dtype=c.dtype, name="norm")(hidden)
        hidden = nn.Dropout(c.dropout, deterministic=not train)(hidden)
        if c.factorised:
            hidden = Dense(c.width, c.dtype, c.init_std, name="widen")(hidden)
        return hidden


class Block(nn.Module):
    """Self-attention and feed-forward, each added to its input and normalised after."""

    config: Any  # Config, or that of an encoder-decoder's encoder

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> tuple[Float[Array, "B L D"], BlockInternals]:
        c = self.config

        def drop(x: Float[Array, "B L D"], after: str) -> Float[Array, "B L D"]:
            used = train and after in c.dropout_after
            return nn.Dropout(c.dropout, deterministic=not used)(x)

        def norm(x: Float[Array, "B L D"], name: str) -> Float[Array, "B L D"]:
            return nn.LayerNorm(c.norm_epsilon, dtype=c.dtype, name=name)(x)

        mixed, inside = Attention(
            c.width,
            c.heads,
            c.attention_dropout,
            c.init_std,
            c.dtype,
            c.attention,
            name="attention",
        )(hidden, mask, train=train)
        hidden = norm(hidden + drop(mixed, "attention"), "attention_norm")
        inner, channels = FeedForward(
            c.width, c.feed_forward, c.activation, c.init_std, c.dtype,
            dropout=c.activation_dropout, name="feed_forward",
        )(hidden, train)  # fmt: skip
        inside = dataclasses.replace(inside, ffn_activations=channels)
        return norm(hidden + drop(inner, "feed_forward"), "norm"), inside


def build(config: Config) -> Model:
    """The three modules of an encoder, and how often its block is applied."""
    config.check()
    config = dataclasses.replace(config)  # modules keep it: later changes must not reach them
    head = config.known_heads[config.head](config)
    return Model(
        Embed(config), Block(config), head, config.layers, config.shared_blocks, config.scan_layers
    )
