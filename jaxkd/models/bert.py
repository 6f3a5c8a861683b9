"""BERT (Devlin et al., 2018), and what later encoders share with it.

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
from jaxkd.models.dropout import Dropout
from jaxkd.models.feed_forward import FeedForward
from jaxkd.models.model import Model
from jaxkd.models.norms import layer_norm

POSITIONS = ("absolute",)


@dataclasses.dataclass
class Config(config.Config):
    """A BERT's shape. The defaults are bert-base-uncased."""

    position: str = "absolute"  # learned, one vector a position
    segments: int = 2  # sentence A and B; 0: no such embedding
    head: str = "masked_lm"

    family: ClassVar[str] = "bert"
    known_heads: ClassVar[Mapping[str, Any]] = heads.ENCODER
    head_activation: ClassVar[str] = ""  # of the masked-LM head; empty: `activation`
    pooled: ClassVar[bool] = True  # the bare model has a pooler
    pool_activation: ClassVar[str] = "tanh"  # between a sequence classifier's two layers
    dropout_before_pool: ClassVar[bool] = False
    dropout_after: ClassVar[tuple[str, ...]] = ("attention", "feed_forward")
    # Rows of the position embedding before the first token's; padding has the last of them.
    position_offset: ClassVar[int] = 0
    factorised: ClassVar[bool] = False  # embeddings of another width, projected to the model's

    @property
    def positions_for_tokens(self) -> int:
        """RoBERTa's first rows hold no position."""
        return self.max_length - self.position_offset

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
    ) -> tuple[Float[Array, "B L D"], dict]:
        c = self.config
        init = nn.initializers.truncated_normal(c.init_std)
        c.check_length(tokens.shape[1])
        token = self.param("token", init, (c.vocabulary, c.embedding))
        position = self.param("position", init, (c.max_length, c.embedding))
        if c.position_offset:
            counted = jnp.cumsum(mask, axis=1) * mask  # 0 on padding, 1, 2 ... on tokens
            hidden = token[tokens] + position[counted + c.position_offset - 1]
        else:
            hidden = token[tokens] + position[: tokens.shape[1]]
        if c.segments:
            segment = self.param("segment", init, (c.segments, c.embedding))
            hidden = hidden + (segment[0] if segments is None else segment[segments])
        hidden = layer_norm(c.norm_epsilon, c.dtype, "norm")(hidden)
        hidden = Dropout(c.dropout, deterministic=not train)(hidden)
        if c.factorised:
            hidden = Dense(c.width, c.dtype, c.init_std, name="widen")(hidden)
        return hidden, {}


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
            return Dropout(c.dropout, deterministic=not used)(x)

        def norm(x: Float[Array, "B L D"], name: str) -> Float[Array, "B L D"]:
            return layer_norm(c.norm_epsilon, c.dtype, name)(x)

        attended, inside = Attention(
            c.width,
            c.heads,
            c.attention_dropout,
            c.init_std,
            c.dtype,
            c.attention,
            name="attention",
        )(hidden, mask, train=train)
        hidden = norm(hidden + drop(attended, "attention"), "attention_norm")
        out, channels = FeedForward(
            c.width, c.feed_forward, c.activation, c.init_std, c.dtype,
            dropout=c.activation_dropout, name="feed_forward",
        )(hidden, train)  # fmt: skip
        inside = dataclasses.replace(inside, ffn_activations=channels)
        return norm(hidden + drop(out, "feed_forward"), "norm"), inside


def build(config: Any, embed: Any = Embed, block: Any = Block) -> Model:
    """An encoder of these modules, each block of its own shape (`config.block`)."""
    config.check()
    config = dataclasses.replace(config)  # modules keep it: later changes must not reach them
    blocks = tuple(block(config.block(i)) for i in range(config.layers))
    heads = {"head": config.known_heads[config.head](config)}
    return Model(embed(config), blocks, heads, config.shared_blocks, config.scan_layers)
