"""The dense layers' product: float32 as ever, bfloat16 rounded once, wherever it stands."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.models.dense import dense, dot_general

# One row, fewer than a vector register, odd ones, more than a tile.
SHAPES = [((1, 1), 1), ((3, 8), 5), ((2, 3, 17), 33), ((2, 2, 5, 64), 130), ((130, 257), 16)]


def setting(shape, width, dtype):
    rng = np.random.default_rng(0)
    drawn = (rng.normal(size=size) for size in (shape, (shape[-1], width), (*shape[:-1], width)))
    return [jnp.array(values, dtype) for values in drawn]


def product(inputs, kernel):
    return dot_general(inputs, kernel, (((inputs.ndim - 1,), (0,)), ((), ())))


def exact(inputs, kernel, probe):
    """The product and both gradients of its sum with `probe`, in float64."""
    inputs, kernel, probe = (np.asarray(x, np.float64) for x in (inputs, kernel, probe))
    flat = inputs.reshape(-1, inputs.shape[-1])
    return inputs @ kernel, probe @ kernel.T, flat.T @ probe.reshape(-1, probe.shape[-1])


def ours(inputs, kernel, probe):
    found, back = jax.vjp(product, inputs, kernel)
    return found, *back(probe)


def assert_rounded(found, expected, inner):
    """To the nearest bfloat16 (a relative 2^-8) of a sum of `inner` products in float32."""
    assert found.dtype == jnp.bfloat16
    size = np.sqrt(inner) * 2.0**-18  # of a cancelling sum's own error
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=2.0**-8, atol=size)


@pytest.mark.parametrize(("shape", "width"), SHAPES)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["op by op", "jitted"])
def test_bfloat16_products_and_gradients_are_rounded_once(shape, width, wrap):
    given = setting(shape, width, jnp.bfloat16)
    rows = int(np.prod(shape[:-1]))
    for found, expected, inner in zip(
        wrap(ours)(*given), exact(*given), (shape[-1], width, rows), strict=True
    ):
        assert_rounded(found, expected, inner)


@pytest.mark.parametrize(("shape", "width"), SHAPES)
def test_float32_is_jax_s_own(shape, width):
    inputs, kernel, probe = setting(shape, width, jnp.float32)
    plain = functools.partial(jnp.tensordot, axes=1)
    expected, back = jax.vjp(plain, inputs, kernel)
    for found, right in zip(ours(inputs, kernel, probe), (expected, *back(probe)), strict=True):
        np.testing.assert_array_equal(found, right)


def test_it_stands_in_loops_branches_and_maps():
    inputs, kernel, probe = setting((4, 6, 32), 48, jnp.bfloat16)
    _, expected, _ = exact(inputs, kernel, probe)

    def to_inputs(inputs, kernel, probe):
        return ours(inputs, kernel, probe)[1]

    def scanned(inputs, kernel, probe):
        return jax.lax.map(lambda pair: to_inputs(pair[0], kernel, pair[1]), (inputs, probe))

    def branch(inputs, kernel, probe):
        def taken():
            return to_inputs(inputs, kernel, probe)

        return jax.lax.cond(inputs.sum() > 1e9, lambda: jnp.zeros_like(inputs), taken)

    mapped = jax.vmap(to_inputs, (0, None, 0))
    for way in (scanned, branch, mapped):
        found = jax.jit(way)(inputs, kernel, probe)
        assert_rounded(found, expected, 48)


def test_on_a_cpu_every_bfloat16_product_is_into_float32():
    """What its instructions do, forward and backward; into bfloat16, XLA would convert first."""
    layer = dense(16, "layer", dtype=jnp.bfloat16, init_std=0.02)
    inputs = jnp.ones((2, 3, 8))
    params = layer.init(jax.random.key(0), inputs)

    def loss(params, inputs):
        return layer.apply(params, inputs).astype(jnp.float32).sum()

    lowered = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, inputs).as_text()
    products = re.findall(r"stablehlo.dot_general.* : \((.*), (.*)\) -> (.*)", lowered)
    assert len(products) == 2  # the forward product's value is not used
    for left, right, result in products:
        assert "bf16" in left and "bf16" in right and "xf32" in result
