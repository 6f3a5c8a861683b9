"""Dense layers: float32 as Flax's, bfloat16 rounded once, wherever they stand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxkd.models.dense import Dense
from jaxkd.models.products import affine

# One row, fewer than a vector register, odd ones, more than a tile; wider and narrower outputs.
SHAPES = [((1, 1), 1), ((3, 8), 5), ((2, 3, 17), 33), ((2, 2, 5, 64), 130), ((130, 257), 16)]


def setting(shape, width, dtype):
    """Inputs, kernel, bias, and a cotangent of the output."""
    rng = np.random.default_rng(0)
    shapes = (shape, (shape[-1], width), (width,), (*shape[:-1], width))
    return [jnp.array(rng.normal(size=size), dtype) for size in shapes]


def exact(*arguments):
    """The output and the three gradients of its sum with the probe, in float64."""
    inputs, kernel, bias, probe = (np.asarray(x, np.float64) for x in arguments)
    rows, out = inputs.reshape(-1, inputs.shape[-1]), probe.reshape(-1, probe.shape[-1])
    return inputs @ kernel + bias, probe @ kernel.T, rows.T @ out, out.sum(0)


def ours(inputs, kernel, bias, probe):
    actual, back = jax.vjp(affine, inputs, kernel, bias)
    return actual, *back(probe)


def assert_rounded(actual, expected, terms):
    """To the nearest bfloat16 (a relative 2^-8) of a sum of that many products in float32."""
    assert actual.dtype == jnp.bfloat16
    cancelled = np.sqrt(terms) * 2.0**-18
    np.testing.assert_allclose(
        np.asarray(actual, np.float64), expected, rtol=2.0**-8, atol=cancelled
    )


@pytest.mark.parametrize(("shape", "width"), SHAPES)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["op by op", "jitted"])
def test_bfloat16_outputs_and_gradients_are_rounded_once(shape, width, wrap):
    arguments = setting(shape, width, jnp.bfloat16)
    rows = int(np.prod(shape[:-1]))
    terms = (shape[-1] + 1, width, rows, rows)
    for actual, expected, many in zip(
        wrap(ours)(*arguments), exact(*arguments), terms, strict=True
    ):
        assert_rounded(actual, expected, many)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_parameters_and_outputs_are_those_of_flax(bias, dtype):
    """The same draw from the same key, the same names; in float32 the same bits."""
    init = nn.initializers.truncated_normal(0.02)
    theirs = nn.Dense(24, use_bias=bias, dtype=dtype, kernel_init=init, bias_init=init)
    student_outputs = Dense(24, dtype, 0.02, bias)
    inputs = jax.random.normal(jax.random.key(1), (2, 3, 16))
    params = theirs.init(jax.random.key(0), inputs)
    drawn = student_outputs.init(jax.random.key(0), inputs)
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, params)
    np.testing.assert_array_equal(drawn["params"]["kernel"], params["params"]["kernel"])

    def run(layer):
        actual, back = jax.vjp(layer.apply, params, inputs)
        return actual, *back(jnp.cos(jnp.arange(actual.size).reshape(actual.shape)).astype(dtype))

    expected = run(theirs)
    for actual, right in zip(
        jax.tree.leaves(run(student_outputs)), jax.tree.leaves(expected), strict=True
    ):
        assert actual.dtype == right.dtype
        if dtype == jnp.float32:  # bfloat16 they round more often
            np.testing.assert_array_equal(actual, right)


def test_it_stands_in_loops_branches_and_maps():
    inputs, kernel, bias, probe = setting((4, 6, 32), 48, jnp.bfloat16)
    _, expected, _, _ = exact(inputs, kernel, bias, probe)

    def to_inputs(inputs, kernel, probe):
        return ours(inputs, kernel, bias, probe)[1]

    def scanned(inputs, kernel, probe):
        return jax.lax.map(lambda pair: to_inputs(pair[0], kernel, pair[1]), (inputs, probe))

    def branch(inputs, kernel, probe):
        def taken():
            return to_inputs(inputs, kernel, probe)

        return jax.lax.cond(inputs.sum() > 1e9, lambda: jnp.zeros_like(inputs), taken)

    mapped = jax.vmap(to_inputs, (0, None, 0))
    for strategy in (scanned, branch, mapped):
        actual = jax.jit(strategy)(inputs, kernel, probe)
        assert_rounded(actual, expected, 48)


@pytest.mark.parametrize("width", [16, 64])
def test_gradients_can_be_transposed(width):
    """XLA fails as it runs where a transpose becomes part of a product of this kind."""
    arguments = setting((2, 16, 32), width, jnp.bfloat16)
    turned = jax.jit(lambda *arguments: [x.astype(jnp.float32).T for x in ours(*arguments)])(
        *arguments
    )
    for actual, right in zip(turned, ours(*arguments), strict=True):
        np.testing.assert_array_equal(actual, right.astype(jnp.float32).T)


def test_on_a_cpu_every_bfloat16_product_is_into_float32():
    """What its instructions do, forward and backward; into bfloat16, XLA would convert first."""
    layer = Dense(16, jnp.bfloat16, 0.02)
    inputs = jnp.ones((2, 3, 8))
    params = layer.init(jax.random.key(0), inputs)

    def loss(params, inputs):
        return layer.apply(params, inputs).astype(jnp.float32).sum()

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    lowered = step.lower(params, inputs).as_text()
    products = re.findall(r"stablehlo.dot_general.* : \((.*), (.*)\) -> (.*)", lowered)
    assert len(products) == 3
    for left, right, result in products:
        assert "bf16" in left and "bf16" in right and "xf32" in result


def test_on_a_cpu_the_kernels_gradient_is_over_one_axis_in_float32():
    """Over batch and positions, XLA copies a transposed side: a step took 1.2 times as long."""
    arguments = setting((2, 5, 8), 16, jnp.float32)
    lowered = jax.jit(ours).lower(*arguments).as_text()
    products = re.findall(r"dot_general.* contracting_dims = \[(.*?)\] x \[(.*?)\]", lowered)
    assert len(products) == 3
    assert all("," not in axes for pair in products for axes in pair), products
    for actual, expected in zip(jax.jit(ours)(*arguments), exact(*arguments), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
