"""Products of attention in bfloat16 on a CPU: float64's, rounded once, forward and backward."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.models.attention import attend
from jaxkd.models.products import mixture, scores
from tests.models.test_dense import assert_rounded

# Batch, groups, queries, keys, width of a head: one of each, odd ones, narrow and wide.
SIZES = [(1, 1, 1, 1, 1), (2, 3, 5, 7, 9), (2, 2, 33, 17, 64), (1, 2, 16, 40, 8)]


def drawn(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.array(rng.normal(size=shape), jnp.bfloat16) for shape in shapes]


def both_ways(product, left, right, probe):
    actual, back = jax.vjp(product, left, right)
    return actual, *back(probe.astype(actual.dtype))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["op by op", "jitted"])
def test_scores_and_their_gradients(size, wrap):
    b, g, rows, keys, width = size
    arguments = drawn((b, g, rows, width), (b, g, keys, width), (b, g, rows, keys))
    query, key, probe = (np.asarray(x, np.float64) for x in arguments)
    actual = wrap(lambda *arguments: both_ways(scores, *arguments))(*arguments)
    assert actual[0].dtype == jnp.float32  # not rounded at all
    np.testing.assert_allclose(actual[0], query @ key.swapaxes(2, 3), rtol=1e-5, atol=1e-5)
    assert_rounded(actual[1], probe @ key, keys)
    assert_rounded(actual[2], probe.swapaxes(2, 3) @ query, rows)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["op by op", "jitted"])
def test_mixtures_and_their_gradients(size, wrap):
    b, g, rows, keys, width = size
    arguments = drawn((b, g, rows, keys), (b, g, keys, width), (b, g, rows, width))
    weights, value, probe = (np.asarray(x, np.float64) for x in arguments)
    actual = wrap(lambda *arguments: both_ways(mixture, *arguments))(*arguments)
    assert_rounded(actual[0], weights @ value, keys)
    assert_rounded(actual[1], probe @ value.swapaxes(2, 3), width)
    assert_rounded(actual[2], weights.swapaxes(2, 3) @ probe, rows)


def attention(query, key, value):
    """Of [B, L, H, K], turned round as the layer does, and back."""
    turned = (x.swapaxes(1, 2) for x in (query, key, value))
    token_mask = jnp.ones((len(query), 1, query.shape[1]), bool)
    return attend(*turned, token_mask)[0].swapaxes(1, 2)


@pytest.mark.parametrize("groups", [4, 2], ids=["each its own", "shared"])
def test_attention_is_float32s_to_rounding(groups):
    arguments = drawn((2, 24, 4, 16), (2, 24, groups, 16), (2, 24, groups, 16), (2, 24, 4, 16))
    wide = [x.astype(jnp.float32) for x in arguments]

    def run(query, key, value, probe):
        actual, back = jax.vjp(attention, query, key, value)
        return actual, *back(probe)

    for actual, right in zip(jax.jit(run)(*arguments), jax.jit(run)(*wide), strict=True):
        # Weights, scores' gradients and results are each rounded, to a relative 2^-8.
        np.testing.assert_allclose(actual.astype(jnp.float32), right, rtol=2**-6, atol=2**-6)


def test_on_a_cpu_no_product_of_attention_is_asked_for_in_bfloat16():
    """And its sides are reshaped last: XLA takes the slow way for sides that are transposes."""
    arguments = drawn((2, 24, 4, 16), (2, 24, 4, 16), (2, 24, 4, 16))

    def loss(*arguments):
        return attention(*arguments).astype(jnp.float32).sum()

    text = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))).lower(*arguments).as_text()
    made = dict(re.findall(r"(%\S+) = stablehlo\.(\w+)", text))
    products = re.findall(r"dot_general (%\w+), (%\w+), .* : \((.*), (.*)\) -> (.*)", text)
    assert len(products) == 6
    for left, right, *types, result in products:
        assert all("bf16" in type for type in types) and "xf32" in result
        assert {made[left], made[right]} == {"reshape"}
