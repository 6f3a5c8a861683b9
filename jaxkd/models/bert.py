"""BERT (Devlin et al., 2018), and what the encoders that came of it share with it.

DistilBERT, RoBERTa and ALBERT are the same embedding and block with other values: their configs
(distilbert.py, roberta.py, albert.py) say which. Heads are in heads.py.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxkd.core.names import did_you_mean
from jaxkd.models.activations import activation
from jaxkd.models.attention import SelfAttention
from jaxkd.models.heads import DTYPES, HEADS, head
from jaxkd.models.model import Model

POSITIONS = ("absolute",)


@dataclasses.dataclass
class Config:
    """A BERT's shape. The defaults are bert-base-uncased."""

    vocabulary: int = 30522  # rows of the token embedding, tied to the output
    layers: int = 12
    width: int = 768
    heads: int = 12
    feed_forward: int = 3072
    activation: str = "gelu"  # see models/activations.py
    position: str = "absolute"  # learned, one vector a position
    max_length: int = 512
    segments: int = 2  # sentence A and B; 0: no such embedding
    dropout: float = 0.1  # of the embeddings and of each sub-layer's output
    attention_dropout: float = 0.1  # of the attention weights
    norm_epsilon: float = 1e-12
    init_std: float = 0.02
    pad: int = 0  # id of the padding token
    compute: str = "float32"  # or bfloat16; parameters, softmax and norms stay float32
    head: str = "masked_lm"  # see models/heads.py
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")  # of a classifier; one label is regression
    classifier_dropout: float = 0.1  # before a classifier

    # What tells the families apart and no checkpoint can change.
    head_activation: ClassVar[str] = ""  # of the masked-LM head; empty: `activation`
    pooled: ClassVar[bool] = True  # the bare model has a pooler
    pool_activation: ClassVar[str] = "tanh"  # between a sequence classifier's two layers
    dropout_before_pool: ClassVar[bool] = False
    dropout_after: ClassVar[tuple[str, ...]] = ("attention", "feed_forward")
    positions_follow_padding: ClassVar[bool] = False  # count tokens, from pad + 1
    factorised: ClassVar[bool] = False  # embeddings of another width, projected to the model's
    shared_blocks: ClassVar[bool] = False  # one block, applied `layers` times

    def __post_init__(self) -> None:
        self.labels = tuple(self.labels)  # JSON has lists

    @property
    def embedding(self) -> int:
        """Width of the token embedding."""
        return self.width

    def check(self) -> None:
        """Raise ValueError for a shape that cannot be built."""
        family = type(self).__module__.rsplit(".", 1)[-1]
        activation(self.activation)
        for name in ("vocabulary", "layers", "width", "heads", "feed_forward", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{family}: {name} is {getattr(self, name)}; it must be at least 1."
                )
        if self.width % self.heads:
            fits = [h for h in range(1, self.width + 1) if self.width % h == 0 and h <= 64]
            raise ValueError(
                f"{family}: width {self.width} is not divisible by {self.heads} heads. "
                f"Set heads to one of {fits}, or change the width."
            )
        if self.compute not in DTYPES:
            raise ValueError(
                f"{family}: compute={self.compute!r}. {did_you_mean(self.compute, DTYPES)}"
            )
        if self.head not in HEADS:
            raise ValueError(f"{family}: head={self.head!r}. {did_you_mean(self.head, HEADS)}")
        if not self.labels:
            raise ValueError(
                f"{family}: labels is empty; a regression has one label, a class each one."
            )
        if self.position not in POSITIONS:
            raise ValueError(
                f"{family}: position={self.position!r}. {did_you_mean(self.position, POSITIONS)}"
            )


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
        dtype, init = DTYPES[c.compute], nn.initializers.truncated_normal(c.init_std)
        longest = c.max_length - (c.pad + 1 if c.positions_follow_padding else 0)
        if tokens.shape[1] > longest:
            raise ValueError(
                f"a sequence of {tokens.shape[1]} tokens is longer than the model's {longest} "
                "positions. Shorten data.length or enlarge the model's max_length."
            )
        token = self.param("token", init, (c.vocabulary, c.embedding))
        position = self.param("position", init, (c.max_length, c.embedding))
        if c.positions_follow_padding:
            hidden = token[tokens] + position[jnp.cumsum(mask, axis=1) * mask + c.pad]
        else:
            hidden = token[tokens] + position[: tokens.shape[1]]
        if c.segments:
            segment = self.param("segment", init, (c.segments, c.embedding))
            hidden = hidden + (segment[0] if segments is None else segment[segments])
        hidden = nn.LayerNorm(c.norm_epsilon, dtype=dtype, name="norm")(hidden)
        hidden = nn.Dropout(c.dropout, deterministic=not train)(hidden)
        if c.factorised:
            hidden = nn.Dense(c.width, dtype=dtype, kernel_init=init, name="widen")(hidden)
        return hidden


class Block(nn.Module):
    """Self-attention and feed-forward, each added to its input and normalised after."""

    config: Config

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        c = self.config
        dtype, init = DTYPES[c.compute], nn.initializers.truncated_normal(c.init_std)

        def drop(hidden: Float[Array, "B L D"], after: str) -> Float[Array, "B L D"]:
            used = train and after in c.dropout_after
            return nn.Dropout(c.dropout, deterministic=not used)(hidden)

        mixed = SelfAttention(
            c.width, c.heads, c.attention_dropout, c.init_std, dtype, name="attention"
        )(hidden, mask, train=train)
        hidden = nn.LayerNorm(c.norm_epsilon, dtype=dtype, name="attention_norm")(
            hidden + drop(mixed, "attention")
        )
        inner = nn.Dense(c.feed_forward, dtype=dtype, kernel_init=init, name="expand")(hidden)
        inner = activation(c.activation)(inner)
        inner = nn.Dense(c.width, dtype=dtype, kernel_init=init, name="contract")(inner)
        return nn.LayerNorm(c.norm_epsilon, dtype=dtype, name="norm")(
            hidden + drop(inner, "feed_forward")
        )


def build(config: Config) -> Model:
    """The three modules of an encoder, and how often its block is applied."""
    config.check()
    config = dataclasses.replace(config)  # modules keep it: later changes must not reach them
    return Model(Embed(config), Block(config), head(config), config.layers, config.shared_blocks)
