"""What stands on the blocks: predict hidden tokens, classify a sequence or each token, or nothing.

Every head is called with the last hidden states (at the target positions, where a batch names
them) and the token embedding, to which vocabulary heads are tied.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxkd.models.activations import activation

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def _dense(config: Any, width: int, name: str) -> nn.Dense:
    init = nn.initializers.truncated_normal(config.init_std)
    return nn.Dense(width, dtype=DTYPES[config.compute], kernel_init=init, name=name)


class MaskedLmHead(nn.Module):
    """Transform, norm, and the transposed token embedding plus a bias; logits in float32."""

    config: Any

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "*B D"], token: Float[Array, "V E"], *, train: bool = False
    ) -> Float[Array, "*B V"]:
        c = self.config
        dtype, init = DTYPES[c.compute], nn.initializers.truncated_normal(c.init_std)
        hidden = nn.Dense(token.shape[1], dtype=dtype, kernel_init=init, name="transform")(hidden)
        hidden = activation(c.head_activation or c.activation)(hidden)
        hidden = nn.LayerNorm(c.norm_epsilon, dtype=dtype, name="norm")(hidden)
        bias = self.param("bias", nn.initializers.zeros_init(), (c.vocabulary,))
        # Vocabulary first: the products, and the losses' sums over the vocabulary, then take half
        # the time on a CPU (see losses/vocabulary.py); elsewhere the axes are only named otherwise.
        flat = hidden.reshape(-1, token.shape[1])
        logits = jnp.matmul(token.astype(dtype), flat.T, preferred_element_type=jnp.float32)
        logits = logits + bias[:, None]
        return jnp.moveaxis(logits.reshape(-1, *hidden.shape[:-1]), 0, -1)


class SequenceHead(nn.Module):
    """Scores of a whole sequence, [B, C] float32, from its first token through one hidden layer."""

    config: Any

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B L D"], token: Float[Array, "V E"], *, train: bool = False
    ) -> Float[Array, "B C"]:
        c = self.config

        def drop(x: Float[Array, "B D"], used: bool = True) -> Float[Array, "B D"]:
            return nn.Dropout(c.classifier_dropout, deterministic=not (train and used))(x)

        first = drop(hidden[:, 0], c.dropout_before_pool)
        first = activation(c.pool_activation)(_dense(c, c.width, "pool")(first))
        return _dense(c, len(c.labels), "classify")(drop(first)).astype(jnp.float32)


class TokenHead(nn.Module):
    """Scores of every token, [B, L, C] float32."""

    config: Any

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B L D"], token: Float[Array, "V E"], *, train: bool = False
    ) -> Float[Array, "B L C"]:
        c = self.config
        hidden = nn.Dropout(c.classifier_dropout, deterministic=not train)(hidden)
        return _dense(c, len(c.labels), "classify")(hidden).astype(jnp.float32)


class BareHead(nn.Module):
    """No predictions: the pooled first token where the family has a pooler, else None."""

    config: Any

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B L D"], token: Float[Array, "V E"], *, train: bool = False
    ) -> Float[Array, "B D"] | None:
        c = self.config
        if not c.pooled:
            return None
        return jnp.tanh(_dense(c, c.width, "pool")(hidden[:, 0])).astype(jnp.float32)


HEADS = {
    "masked_lm": MaskedLmHead,
    "sequence_classification": SequenceHead,
    "token_classification": TokenHead,
    "bare": BareHead,
}


def head(config: Any) -> nn.Module:
    """The module of `config.head`."""
    return HEADS[config.head](config)
