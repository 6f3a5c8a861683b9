"""Dense layers: Flax's, with a product in the form that each machine is fast at."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


def dense(width: int, name: str, *, dtype: Any, init_std: float, bias: bool = True) -> nn.Dense:
    """A layer of so many outputs, its kernel drawn from a truncated normal."""
    return nn.Dense(
        width,
        use_bias=bias,
        dtype=dtype,
        kernel_init=nn.initializers.truncated_normal(init_std),
        dot_general=dot_general,
        name=name,
    )


def dot_general(
    inputs: Float[Array, "*B D"],
    kernel: Float[Array, "D F"],
    dimension_numbers: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Float[Array, "*B F"]:
    """`jax.lax.dot_general` for `nn.Dense(dot_general=...)`: the last axis of the inputs times the
    kernel.

    On a CPU, bfloat16 is multiplied into float32 and rounded after, forward and backward, which is
    what its bfloat16 instructions do; asked for bfloat16 at once, XLA (jax 0.10.2) converts both
    sides to float32 first. Differentiable in reverse.
    """
    usual = (((inputs.ndim - 1,), (0,)), ((), ()))
    reduced = inputs.dtype == kernel.dtype == jnp.bfloat16 and inputs.ndim > 1
    if reduced and dimension_numbers == usual and jax.default_backend() == "cpu":
        return _rounded_after(inputs, kernel)
    return jax.lax.dot_general(
        inputs,
        kernel,
        dimension_numbers,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


@jax.custom_vjp
def _rounded_after(inputs: Array, kernel: Array) -> Array:
    return _contract(inputs, kernel, (inputs.ndim - 1,), (0,))


def _forward(inputs: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _rounded_after(inputs, kernel), (inputs, kernel)


def _backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    inputs, kernel = kept
    to_inputs = _contract(gradient, kernel, (gradient.ndim - 1,), (1,))
    # Over two axes: over a single first one, XLA takes the slow way again.
    by_row = (1, -1, inputs.shape[-1]), (1, -1, gradient.shape[-1])
    inputs, gradient = inputs.reshape(by_row[0]), gradient.reshape(by_row[1])
    return to_inputs, _contract(inputs, gradient, (0, 1), (0, 1))


_rounded_after.defvjp(_forward, _backward)


def _contract(a: Array, b: Array, over: tuple[int, ...], and_over: tuple[int, ...]) -> Array:
    found = jax.lax.dot_general(
        a, b, ((over, and_over), ((), ())), preferred_element_type=jnp.float32
    )
    return found.astype(a.dtype)
