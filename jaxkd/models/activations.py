"""The activation functions a config may name, under HuggingFace's names and with its formulas."""

from collections.abc import Callable, Mapping

import jax
from jax import nn

from jaxkd.core.names import did_you_mean


def _gelu(x: jax.Array) -> jax.Array:
    return nn.gelu(x, approximate=False)


def _gelu_tanh(x: jax.Array) -> jax.Array:
    return nn.gelu(x, approximate=True)


def _quick_gelu(x: jax.Array) -> jax.Array:
    return x * nn.sigmoid(1.702 * x)


ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "relu": nn.relu,
    "relu6": nn.relu6,
    "silu": nn.silu,
    "swish": nn.silu,
    "mish": nn.mish,
    "tanh": jax.numpy.tanh,
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function of that name; a ValueError with the names there are, for any other."""
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}. {did_you_mean(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
