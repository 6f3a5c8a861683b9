"""Position-wise layers: a feed-forward with one hidden layer, or a choice of experts."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxkd.models.activations import activation
from jaxkd.models.dense import Dense
from jaxkd.models.dropout import Dropout
from jaxkd.models.grouped import grouped_dot


class FeedForward(nn.Module):
    """contract(f(expand x)), or contract(f(gate x) * expand x) where `gated` (Shazeer, 2020)."""

    width: int
    inner: int
    activation: str
    init_std: float
    dtype: Any
    gated: bool = False
    bias: bool = True
    dropout: float = 0.0  # after the activation

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "*B D"], train: bool = False
    ) -> tuple[Float[Array, "*B D"], Float[Array, "*B F"]]:
        """The output, and what its channels were before `contract`."""
        own = (self.dtype, self.init_std, self.bias)
        act, inner = activation(self.activation), Dense(self.inner, *own, name="expand")(hidden)
        if self.gated:
            inner = act(Dense(self.inner, *own, name="gate")(hidden)) * inner
        else:
            inner = act(inner)
        inner = Dropout(self.dropout, deterministic=not train)(inner)
        return Dense(self.width, *own, name="contract")(inner), inner


class Experts(nn.Module):
    """Each token goes through `chosen` of E gated feed-forwards, and one that all tokens share.

    Tokens are sorted by expert and multiplied group by group, so that the work does not grow with
    the number of experts (benchmarks/experts.py).
    Source: Qwen1.5-MoE (Qwen team, 2024); the router's probabilities are a softmax over all experts
    in float32.
    """

    width: int
    inner: int
    shared: int  # width of the shared expert
    experts: int
    chosen: int
    normalised: bool  # the chosen experts' probabilities are divided by their sum
    activation: str
    init_std: float
    dtype: Any

    @nn.compact
    def __call__(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        init = nn.initializers.truncated_normal(self.init_std)
        own = (self.dtype, self.init_std, False)

        def weights(name: str, *shape: int) -> Float[Array, "E N M"]:
            return self.param(name, init, (self.experts, *shape)).astype(self.dtype)

        gate, expand = (weights(name, self.width, self.inner) for name in ("gate", "expand"))
        contract = weights("contract", self.inner, self.width)
        tokens = hidden.reshape(-1, self.width)
        router = Dense(self.experts, *own, name="router")(tokens)
        probs = jax.nn.softmax(router.astype(jnp.float32))
        share, expert = jax.lax.top_k(probs, self.chosen)  # [N, chosen]
        if self.normalised:
            share = share / share.sum(-1, keepdims=True)
        order = jnp.argsort(expert.ravel())
        sizes = jnp.bincount(expert.ravel(), length=self.experts)
        sent = tokens[order // self.chosen].astype(self.dtype)
        act = activation(self.activation)
        inner = act(grouped_dot(sent, gate, sizes)) * grouped_dot(sent, expand, sizes)
        returned = grouped_dot(inner, contract, sizes)
        returned = returned * share.ravel()[order, None].astype(self.dtype)
        out = jnp.zeros(tokens.shape, self.dtype).at[order // self.chosen].add(returned)
        common, _ = FeedForward(
            self.width, self.shared, self.activation, self.init_std, self.dtype,
            gated=True, bias=False, name="shared",
        )(tokens)  # fmt: skip
        common = jax.nn.sigmoid(Dense(1, *own, name="shared_gate")(tokens)) * common
        return (out + common).reshape(hidden.shape)
