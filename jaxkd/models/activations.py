"""The activation functions a config may name, under HuggingFace's names and with its formulas.

Each is computed in float32 and rounded once, as torch does. From bfloat16 XLA's CPU compiler rounds
after every step of a formula, which took three to five times as long (1024 x 1536 numbers there and
back on one core of a Xeon with AMX, jax 0.10.2: gelu_new 20 ms and 4.6, silu 10 ms and 3.9).
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import nn

from jaxkd.core.names import did_you_mean


def _gelu(x: jax.Array) -> jax.Array:
    return nn.gelu(x, approximate=False)


def _gelu_tanh(x: jax.Array) -> jax.Array:
    return nn.gelu(x, approximate=True)


def _quick_gelu(x: jax.Array) -> jax.Array:
    return x * nn.sigmoid(1.702 * x)


def _in_float32(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    def rounded_once(x: jax.Array) -> jax.Array:
        return function(x.astype(jnp.float32)).astype(x.dtype)

    return rounded_once


ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    name: _in_float32(function)
    for name, function in {
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
        "tanh": jnp.tanh,
    }.items()
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function of that name; a ValueError with the names there are, for any other."""
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}. {did_you_mean(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
