"""Dense layers, their products in the form that each machine is fast at."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


class Dense(nn.Module):
    """inputs @ kernel + bias, in `dtype`; parameters are float32 and named as those of nn.Dense."""

    width: int
    dtype: Any
    init_std: float  # of the truncated normal that the kernel is drawn from
    bias: bool = True

    @nn.compact
    def __call__(self, inputs: Float[Array, "*B D"]) -> Float[Array, "*B {self.width}"]:
        init = nn.initializers.truncated_normal(self.init_std)
        kernel = self.param("kernel", init, (inputs.shape[-1], self.width)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,)) if self.bias else 0.0
        return affine(inputs.astype(self.dtype), kernel, jnp.asarray(bias, self.dtype))


def affine(
    inputs: Float[Array, "*B D"], kernel: Float[Array, "D F"], bias: Float[Array, " *F"]
) -> Float[Array, "*B F"]:
    """inputs @ kernel + bias, all of one type; a scalar bias counts as none.

    On a CPU, bfloat16 is multiplied into float32 and rounded after, forward and backward, which is
    what its bfloat16 instructions do; asked for bfloat16 at once, XLA (jax 0.10.2) converts both
    sides to float32 first. Differentiable in reverse.
    """
    if inputs.dtype == jnp.bfloat16 and inputs.ndim > 1 and jax.default_backend() == "cpu":
        return _rounded_after(inputs, kernel, bias)
    product = jnp.tensordot(inputs, kernel, 1)
    return product + bias if bias.ndim else product


@jax.custom_vjp
def _rounded_after(inputs: Array, kernel: Array, bias: Array) -> Array:
    product = _contract(inputs, kernel, (inputs.ndim - 1,), (0,))
    return (product + bias if bias.ndim else product).astype(inputs.dtype)


def _forward(inputs: Array, kernel: Array, bias: Array) -> tuple[Array, tuple[Array, ...]]:
    return _rounded_after(inputs, kernel, bias), (inputs, kernel, bias)


def _backward(kept: tuple[Array, ...], gradient: Array) -> tuple[Array, Array, Array]:
    inputs, kernel, bias = kept
    to_inputs = _contract(gradient, kernel, (gradient.ndim - 1,), (1,))
    # Over two axes: over a single first one, XLA takes the slow way again. It turns the left side
    # round first, which had better be the narrow one.
    rows, out = (x.reshape(1, -1, x.shape[-1]) for x in (inputs, gradient))
    if rows.shape[-1] > out.shape[-1]:
        to_kernel = _contract(out, rows, (0, 1), (0, 1)).astype(kernel.dtype).T
    else:
        to_kernel = _contract(rows, out, (0, 1), (0, 1)).astype(kernel.dtype)
    to_bias = out.sum((0, 1)) if bias.ndim else jnp.zeros_like(bias)
    return to_inputs.astype(inputs.dtype), to_kernel, to_bias


_rounded_after.defvjp(_forward, _backward)


def _contract(a: Array, b: Array, over: tuple[int, ...], and_over: tuple[int, ...]) -> Array:
    dimensions = ((over, and_over), ((), ()))
    product = jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)
    # XLA fails as the program runs if it merges a transpose of the result into such a product.
    return jax.lax.optimization_barrier(product)
