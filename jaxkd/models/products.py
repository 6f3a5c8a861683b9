"""Matrix products of bfloat16 in the form that a CPU is fast at, forward and backward.

Its bfloat16 instructions add up in float32, so every product here is computed into float32 and
rounded after; for a product into bfloat16, XLA (jax 0.10.2) converts both sides to float32 first.
Other types, and other machines, get the plain product. Differentiable in reverse.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxkd.core.backend import cpu_workarounds


def affine(
    inputs: Float[Array, "*B D"], kernel: Float[Array, "D F"], bias: Float[Array, " *F"]
) -> Float[Array, "*B F"]:
    """inputs @ kernel + bias, all of one type; a scalar bias counts as none."""
    if _slow(inputs) and inputs.ndim > 1:
        return _affine(inputs, kernel, bias)
    if inputs.ndim > 2 and cpu_workarounds():
        # One axis of rows: for the kernel's gradient over two, XLA copies a transposed side first.
        rows = affine(inputs.reshape(-1, inputs.shape[-1]), kernel, bias)
        return rows.reshape(*inputs.shape[:-1], -1)
    product = jnp.tensordot(inputs, kernel, 1)
    return product + bias if bias.ndim else product


def scores(query: Float[Array, "B G L K"], key: Float[Array, "B G S K"]) -> Float[Array, "B G L S"]:
    """Each query with each key, in float32."""
    if _slow(query, key):
        return _scores(query, key)
    return jnp.einsum("BGLK,BGSK->BGLS", query, key, preferred_element_type=jnp.float32)


def mixture(
    weights: Float[Array, "B G L S"], value: Float[Array, "B G S K"]
) -> Float[Array, "B G L K"]:
    """The values weighted, in the type of both."""
    if _slow(weights, value):
        return _mixture(weights, value)
    return jnp.einsum("BGLS,BGSK->BGLK", weights, value)


def _slow(*sides: Array) -> bool:
    return all(x.dtype == jnp.bfloat16 for x in sides) and cpu_workarounds()


@jax.custom_vjp
def _affine(inputs: Array, kernel: Array, bias: Array) -> Array:
    product = _contract(inputs, kernel, (inputs.ndim - 1,), (0,))
    return (product + bias if bias.ndim else product).astype(inputs.dtype)


def _affine_backward(residuals: tuple[Array, ...], gradient: Array) -> tuple[Array, Array, Array]:
    inputs, kernel, bias = residuals
    to_inputs = _contract(gradient, kernel, (gradient.ndim - 1,), (1,))
    rows, out = (x.reshape(-1, x.shape[-1]) for x in (inputs, gradient))
    to_bias = out.sum(0) if bias.ndim else jnp.zeros_like(bias)
    return to_inputs.astype(inputs.dtype), _over_rows(rows, out).astype(kernel.dtype), to_bias


_affine.defvjp(lambda *args: (_affine(*args), args), _affine_backward)


@jax.custom_vjp
def _scores(query: Array, key: Array) -> Array:
    return _contract(query, key, (3,), (3,), batch=2)


def _scores_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    query, key = residuals
    gradient = gradient.astype(query.dtype)  # torch's and fused kernels round it as well
    to_query = _contract(gradient, key, (3,), (2,), batch=2)
    return to_query.astype(query.dtype), _over_rows(gradient, query).astype(key.dtype)


_scores.defvjp(lambda *args: (_scores(*args), args), _scores_backward)


@jax.custom_vjp
def _mixture(weights: Array, value: Array) -> Array:
    return _contract(weights, value, (3,), (2,), batch=2).astype(value.dtype)


def _mixture_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    weights, value = residuals
    to_weights = _contract(gradient, value, (3,), (3,), batch=2)
    return to_weights.astype(weights.dtype), _over_rows(weights, gradient).astype(value.dtype)


_mixture.defvjp(lambda *args: (_mixture(*args), args), _mixture_backward)


def _over_rows(left: Float[Array, "*B N M"], right: Float[Array, "*B N K"]) -> Array:
    """left' right [*B, M, K], in float32.

    Over two axes: over a single first one, XLA takes the slow way again. It transposes the
    left side first, which is the narrow one for that reason.
    """
    batch = left.ndim - 2
    if left.shape[-1] > right.shape[-1]:
        return _over_rows(right, left).swapaxes(-1, -2)
    left, right = (jnp.expand_dims(x, batch) for x in (left, right))
    rows = (batch, batch + 1)
    return _contract(left, right, rows, rows, batch=batch)


def _contract(
    a: Array, b: Array, over: tuple[int, ...], and_over: tuple[int, ...], batch: int = 0
) -> Any:
    """Their product in float32 over these axes, for each index of the first `batch` axes."""
    if batch > 1:
        # As one: of a side that was transposed before, only a reshape has an order of axes that XLA
        # takes the fast way for.
        sizes = a.shape[:batch]
        a, b = (x.reshape(-1, *x.shape[batch:]) for x in (a, b))
        less = (tuple(axis - batch + 1 for axis in axes) for axes in (over, and_over))
        product = _contract(a, b, *less, batch=1)
        return product.reshape(*sizes, *product.shape[1:])
    own = tuple(range(batch))
    dimensions = ((over, and_over), (own, own))
    product = jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)
    # XLA fails as the program runs if it merges a transpose of the result into such a product.
    return jax.lax.optimization_barrier(product)
