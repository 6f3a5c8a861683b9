"""Dropout draws what JAX's own generator draws, in another form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxkd.models.dropout import Dropout, bernoulli


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5, 8), (64, 129)])
@pytest.mark.parametrize("probability", [0.9, 0.5, 0.1, 1.0, 1e-3])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["op by op", "jitted"])
def test_draws_are_those_of_jax(shape, probability, wrap):
    for seed in range(3):
        key = jax.random.fold_in(jax.random.key(seed), 5)
        actual = wrap(lambda key: bernoulli(key, probability, shape))(key)
        np.testing.assert_array_equal(actual, jax.random.bernoulli(key, probability, shape))


def test_the_words_are_those_of_jax_under_a_vmap():
    keys = jax.random.split(jax.random.key(0), 4)
    actual = jax.vmap(lambda key: bernoulli(key, 0.5, (9, 3)))(keys)
    expected = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (9, 3)))(keys)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("kind", ["rbg", "threefry2x32"])
def test_any_kind_of_key_draws(kind, monkeypatch):
    key = jax.random.key(0, impl=kind)
    expected = jax.random.bernoulli(key, 0.3, (50,))
    np.testing.assert_array_equal(bernoulli(key, 0.3, (50,)), expected)
    monkeypatch.setenv("JAXKD_CPU_WORKAROUNDS", "0")
    np.testing.assert_array_equal(bernoulli(key, 0.3, (50,)), expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_layer_is_that_of_flax_forward_and_backward(dtype):
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(6, 40)), dtype)
    key = {"dropout": jax.random.key(3)}

    class Outer(nn.Module):
        layer: type[nn.Module]

        @nn.compact
        def __call__(self, inputs):
            # The key of a layer depends on its name.
            return self.layer(0.2, deterministic=False, name="Dropout_0")(inputs)

    def both(layer):
        return jax.vjp(lambda x: Outer(layer).apply({}, x, rngs=key), inputs)

    (actual, back), (expected, expected_back) = both(Dropout), both(nn.Dropout)
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(back(inputs)[0], expected_back(inputs)[0])
    assert 0 < int((actual == 0).sum()) < actual.size / 2


@pytest.mark.parametrize("rate, deterministic", [(0.0, False), (0.5, True)])
def test_nothing_is_dropped_where_nothing_is_to_be(rate, deterministic):
    inputs = jnp.ones((3, 4))
    np.testing.assert_array_equal(Dropout(rate, deterministic).apply({}, inputs), inputs)


def test_where_all_is_dropped_the_gradient_is_zero():
    layer, rngs = Dropout(1.0, deterministic=False), {"dropout": jax.random.key(0)}
    gradient = jax.grad(lambda x: layer.apply({}, x, rngs=rngs).sum())(jnp.ones((3, 4)))
    np.testing.assert_array_equal(gradient, np.zeros((3, 4)))
