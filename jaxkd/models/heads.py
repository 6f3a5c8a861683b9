"""Heads: predict tokens, classify a sequence or each token, or nothing.

Every head is called with hidden states (at the target positions, where a batch names them), the
token embedding, to which vocabulary heads may be tied, and the padding mask.
"""

import collections
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from jaxkd.core.outputs import Projection
from jaxkd.models.activations import activation
from jaxkd.models.dense import Dense
from jaxkd.models.dropout import Dropout
from jaxkd.models.norms import layer_norm

_NEVER = -1e9  # finite: a class that neither teacher nor student chooses costs 0 nats


def _dense(config: Any, width: int, name: str, bias: bool = True) -> Dense:
    return Dense(width, config.dtype, config.init_std, bias, name=name)


class VocabularyHead(nn.Module):
    """Logits of every token of the vocabulary; `project` gives their factors."""

    config: Any

    def __call__(
        self,
        hidden: Float[Array, "*B D"],
        token: Float[Array, "V E"],
        mask: Bool[Array, "B L"],
        *,
        train: bool = False,
    ) -> Float[Array, "*B V"]:
        return self.project(hidden, token, train=train).logits()


class MaskedLmHead(VocabularyHead):
    """Transform, norm, and the transposed token embedding plus a bias."""

    @nn.compact
    def project(
        self, hidden: Float[Array, "*B D"], token: Float[Array, "V E"], *, train: bool = False
    ) -> Projection:
        c = self.config
        hidden = _dense(c, token.shape[1], "transform")(hidden)
        hidden = activation(c.head_activation or c.activation)(hidden)
        hidden = layer_norm(c.norm_epsilon, c.dtype, "norm")(hidden)
        bias = self.param("bias", nn.initializers.zeros_init(), (c.vocabulary,))
        return Projection(hidden, token, bias)


class SequenceHead(nn.Module):
    """Scores of a whole sequence, [B, C] float32, from its first token through one hidden layer."""

    config: Any

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        token: Float[Array, "V E"],
        mask: Bool[Array, "B L"],
        *,
        train: bool = False,
    ) -> Float[Array, "B C"]:
        c = self.config

        def drop(x: Float[Array, "B D"], used: bool = True) -> Float[Array, "B D"]:
            return Dropout(c.classifier_dropout, deterministic=not (train and used))(x)

        first = drop(hidden[:, 0], c.dropout_before_pool)
        first = activation(c.pool_activation)(_dense(c, c.width, "pool")(first))
        return _dense(c, len(c.labels), "classify")(drop(first)).astype(jnp.float32)


class MultiTaskHead(nn.Module):
    """Scores of a sequence for several tasks, [B, K, C] float32, through one hidden layer each.

    `config.labels` are "task:class"; C is the largest number of classes of a task, and the columns
    that another task lacks are never chosen.
    Source: Zhang and Chai (2021), arXiv:2106.03427 (HiTUT).
    """

    config: Any

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        token: Float[Array, "V E"],
        mask: Bool[Array, "B L"],
        *,
        train: bool = False,
    ) -> Float[Array, "B K C"]:
        c = self.config
        sizes = collections.Counter(label.split(":")[0] for label in c.labels)  # in their order
        drop = Dropout(c.classifier_dropout, deterministic=not train)
        first, widest, scores = drop(hidden[:, 0]), max(sizes.values()), []
        for task, size in sizes.items():
            inner = _dense(c, c.width, f"{task}_pool")(first)
            inner = drop(activation(c.pool_activation)(inner))
            own = _dense(c, size, f"{task}_classify")(inner).astype(jnp.float32)
            scores.append(jnp.pad(own, ((0, 0), (0, widest - size)), constant_values=_NEVER))
        return jnp.stack(scores, axis=1)


class TokenHead(nn.Module):
    """Scores of every token, [B, L, C] float32."""

    config: Any

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        token: Float[Array, "V E"],
        mask: Bool[Array, "B L"],
        *,
        train: bool = False,
    ) -> Float[Array, "B L C"]:
        c = self.config
        hidden = Dropout(c.classifier_dropout, deterministic=not train)(hidden)
        return _dense(c, len(c.labels), "classify")(hidden).astype(jnp.float32)


class PooledHead(nn.Module):
    """No predictions: the pooled first token where the family has a pooler, else None."""

    config: Any

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        token: Float[Array, "V E"],
        mask: Bool[Array, "B L"],
        *,
        train: bool = False,
    ) -> Float[Array, "B D"] | None:
        if not self.config.pooled:
            return None
        first = _dense(self.config, self.config.width, "pool")(hidden[:, 0])
        return jnp.tanh(first).astype(jnp.float32)


class CausalLmHead(VocabularyHead):
    """Final norm, then the token embedding or a matrix of its own."""

    @nn.compact
    def project(
        self, hidden: Float[Array, "*B D"], token: Float[Array, "V D"], *, train: bool = False
    ) -> Projection:
        c = self.config
        if not c.tied:
            init = nn.initializers.truncated_normal(c.init_std)
            token = self.param("output", init, (c.vocabulary, c.width))
        return Projection(c.norm("norm")(hidden), token)


class LastTokenHead(nn.Module):
    """Scores of a whole sequence, [B, C] float32, from its last token that is not padding."""

    config: Any

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        token: Float[Array, "V D"],
        mask: Bool[Array, "B L"],
        *,
        train: bool = False,
    ) -> Float[Array, "B C"]:
        c = self.config
        last = jnp.argmax(jnp.arange(mask.shape[1]) * mask, axis=1)
        hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
        hidden = c.norm("norm")(hidden)
        return _dense(c, len(c.labels), "classify", bias=False)(hidden).astype(jnp.float32)


class NormHead(nn.Module):
    """No predictions: the hidden states after the final norm."""

    config: Any

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "*B D"],
        token: Float[Array, "V D"],
        mask: Bool[Array, "B L"],
        *,
        train: bool = False,
    ) -> Float[Array, "*B D"]:
        return self.config.norm("norm")(hidden)


class Seq2SeqHead(VocabularyHead):
    """The token embedding transposed, and a constant of each token that does not learn."""

    @nn.compact
    def project(
        self, hidden: Float[Array, "*B D"], token: Float[Array, "V D"], *, train: bool = False
    ) -> Projection:
        bias = self.param("bias", nn.initializers.zeros_init(), (1, self.config.vocabulary))
        return Projection(hidden, token, jax.lax.stop_gradient(bias)[0])


ENCODER = {
    "masked_lm": MaskedLmHead,
    "sequence_classification": SequenceHead,
    "token_classification": TokenHead,
    "multi_task": MultiTaskHead,
    "bare": PooledHead,
}
DECODER = {
    "causal_lm": CausalLmHead,
    "sequence_classification": LastTokenHead,
    "bare": NormHead,
}
SEQ2SEQ = {"seq2seq_lm": Seq2SeqHead}
