"""Products of groups of rows: the blocks of a CPU against ragged_dot and against a loop."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.models.grouped import BLOCK, grouped_dot

SIZES = {
    "even": [10, 10, 10],
    "empty groups": [0, 30, 0, 0, 3, 0],
    "one group": [0, 2 * BLOCK, 0],
    "whole blocks and more": [BLOCK, 2 * BLOCK + 1, BLOCK - 1, 1],
    "no rows": [0, 0],
}


def setting(sizes, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    rows = jnp.array(rng.normal(size=(sum(sizes), 5)), dtype)
    return rows, jnp.array(rng.normal(size=(len(sizes), 5, 7)), dtype), jnp.array(sizes)


def one_by_one(rows, weights, sizes):
    eos_ids = np.cumsum(np.array(sizes))
    parts = [rows[e - n : e] @ w for e, n, w in zip(eos_ids, np.array(sizes), weights, strict=True)]
    return jnp.concatenate(parts)


def value_and_gradient(strategy, rows, weights, sizes):
    out = strategy(rows, weights, sizes)
    probe = jnp.cos(jnp.arange(out.size).reshape(out.shape))
    gradient = jax.grad(lambda r, w: jnp.sum(probe * strategy(r, w, sizes)), argnums=(0, 1))
    return out, gradient(rows, weights)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_each_row_goes_through_its_groups_matrix(sizes):
    arguments = setting(sizes)
    actual = value_and_gradient(jax.jit(grouped_dot), *arguments)
    chex.assert_trees_all_close(actual, value_and_gradient(one_by_one, *arguments), atol=1e-5)
    ragged = value_and_gradient(jax.lax.ragged_dot, *arguments)
    chex.assert_trees_all_close(actual, ragged, atol=1e-5)


def test_gradients_of_bfloat16_weights_add_up_in_float32():
    rows, weights, sizes = setting([400, 3], jnp.bfloat16)
    full = value_and_gradient(grouped_dot, *(x.astype(jnp.float32) for x in (rows, weights)), sizes)
    _, (_, actual) = value_and_gradient(grouped_dot, rows, weights, sizes)
    assert actual.dtype == jnp.bfloat16
    expected = full[1][1]
    assert jnp.linalg.norm(actual - expected) < 0.01 * jnp.linalg.norm(expected)


def test_a_cpu_loops_over_blocks():
    rows, weights, sizes = setting([3 * BLOCK] + 63 * [0])
    text = jax.jit(grouped_dot).lower(rows, weights, sizes).as_text()
    assert "ragged_dot" not in text and "while" in text
