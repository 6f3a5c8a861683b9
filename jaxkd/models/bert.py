"""BERT as an embedding, a block and a masked-language-model head (Devlin et al., 2018)."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxkd.core.names import did_you_mean
from jaxkd.models.activations import activation
from jaxkd.models.attention import SelfAttention
from jaxkd.models.model import Model

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
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
    segments: int = 2  # sentence A and B
    dropout: float = 0.1  # of the embeddings and of each sub-layer's output
    attention_dropout: float = 0.1  # of the attention weights
    norm_epsilon: float = 1e-12
    init_std: float = 0.02
    pad: int = 0  # id of the padding token
    compute: str = "float32"  # or bfloat16; parameters, softmax and norms stay float32

    def check(self) -> None:
        """Raise ValueError for a shape that cannot be built."""
        activation(self.activation)
        for name in ("vocabulary", "layers", "width", "heads", "feed_forward", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"bert: {name} is {getattr(self, name)}; it must be at least 1.")
        if self.width % self.heads:
            fits = [h for h in range(1, self.width + 1) if self.width % h == 0 and h <= 64]
            raise ValueError(
                f"bert: width {self.width} is not divisible by {self.heads} heads. "
                f"Set heads to one of {fits}, or change the width."
            )
        if self.compute not in DTYPES:
            raise ValueError(
                f"bert: compute={self.compute!r}. {did_you_mean(self.compute, DTYPES)}"
            )
        if self.position not in POSITIONS:
            raise ValueError(
                f"bert: position={self.position!r}. {did_you_mean(self.position, POSITIONS)}"
            )


class Embed(nn.Module):
    """Token + position + segment, normalised."""

    config: Config

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B L"],
        segments: Int[Array, "B L"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B L D"]:
        c = self.config
        if tokens.shape[1] > c.max_length:
            raise ValueError(
                f"a sequence of {tokens.shape[1]} tokens is longer than the model's max_length "
                f"{c.max_length}. Shorten data.length or enlarge the model's max_length."
            )
        init = nn.initializers.truncated_normal(c.init_std)
        token = self.param("token", init, (c.vocabulary, c.width))
        position = self.param("position", init, (c.max_length, c.width))
        segment = self.param("segment", init, (c.segments, c.width))
        hidden = token[tokens] + position[: tokens.shape[1]]
        hidden = hidden + (segment[0] if segments is None else segment[segments])
        hidden = nn.LayerNorm(c.norm_epsilon, dtype=DTYPES[c.compute], name="norm")(hidden)
        return nn.Dropout(c.dropout, deterministic=not train)(hidden)


class Block(nn.Module):
    """Self-attention and feed-forward, each added to its input and normalised after."""

    config: Config

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        c = self.config
        dtype, init = DTYPES[c.compute], nn.initializers.truncated_normal(c.init_std)
        drop = nn.Dropout(c.dropout, deterministic=not train)
        mixed = SelfAttention(
            c.width, c.heads, c.attention_dropout, c.init_std, dtype, name="attention"
        )(hidden, mask, train=train)
        hidden = nn.LayerNorm(c.norm_epsilon, dtype=dtype, name="attention_norm")(
            hidden + drop(mixed)
        )
        inner = nn.Dense(c.feed_forward, dtype=dtype, kernel_init=init, name="expand")(hidden)
        inner = activation(c.activation)(inner)
        inner = nn.Dense(c.width, dtype=dtype, kernel_init=init, name="contract")(inner)
        return nn.LayerNorm(c.norm_epsilon, dtype=dtype, name="norm")(hidden + drop(inner))


class MaskedLmHead(nn.Module):
    """Transform, norm, and the transposed token embedding plus a bias; logits in float32."""

    config: Config

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "*B D"], token: Float[Array, "V D"], *, train: bool = False
    ) -> Float[Array, "*B V"]:
        c = self.config
        dtype, init = DTYPES[c.compute], nn.initializers.truncated_normal(c.init_std)
        hidden = nn.Dense(c.width, dtype=dtype, kernel_init=init, name="transform")(hidden)
        hidden = activation(c.activation)(hidden)
        hidden = nn.LayerNorm(c.norm_epsilon, dtype=dtype, name="norm")(hidden)
        bias = self.param("bias", nn.initializers.zeros_init(), (c.vocabulary,))
        # Vocabulary first: the products, and the losses' sums over the vocabulary, then take half
        # the time on a CPU (see losses/vocabulary.py); elsewhere the axes are only named otherwise.
        flat = hidden.reshape(-1, c.width)
        logits = jnp.matmul(token.astype(dtype), flat.T, preferred_element_type=jnp.float32)
        logits = logits + bias[:, None]
        return jnp.moveaxis(logits.reshape(-1, *hidden.shape[:-1]), 0, -1)


def masked_lm(config: Config) -> Model:
    """The three modules and the number of blocks of a BERT for masked language modelling."""
    config.check()
    config = dataclasses.replace(config)  # modules keep it: later changes must not reach them
    return Model(Embed(config), Block(config), MaskedLmHead(config), config.layers)
