"""Attention on a CPU some rows at a time: the numbers and gradients of all rows at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.models import attention
from jaxkd.models.attention import Attention

ROWS, LENGTH, WIDTH = 6, 16, 24


def module(**changes):
    settings = dict(width=WIDTH, heads=4, dropout=0.0, init_std=0.3, dtype=jnp.float32)
    return Attention(**settings | changes)


def run(monkeypatch, long, layer, bias=None):
    """Outputs, weights, and gradients by parameters and inputs; `long`: some rows at a time."""
    monkeypatch.setattr(attention, "LONG", 1 if long else 1 << 60)
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.standard_normal((ROWS, LENGTH, WIDTH), dtype=np.float32))
    mask = jnp.arange(LENGTH) < jnp.asarray(rng.integers(3, LENGTH + 1, ROWS))[:, None]
    params = layer.init(jax.random.key(1), hidden, mask, train=False, score_bias=bias)
    probe = jnp.asarray(rng.standard_normal(hidden.shape, dtype=np.float32))

    def total(params, hidden):
        rngs = {"dropout": jax.random.key(2)}
        out, internals = layer.apply(params, hidden, mask, train=True, score_bias=bias, rngs=rngs)
        return (out * probe).sum(), (out, internals.attention)

    gradient = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))
    text = str(jax.make_jaxpr(jax.grad(total, argnums=(0, 1), has_aux=True))(params, hidden))
    return gradient(params, hidden), "checkpoint" in text or "remat" in text


@pytest.mark.parametrize(
    "changes",
    [{}, {"dropout": 0.3}, {"kv_heads": 2, "causal": True}, {"dropout": 0.5, "kv_heads": 1}],
    ids=["plain", "dropout", "groups", "dropout in groups"],
)
@pytest.mark.parametrize("biased", [None, 1, ROWS])
def test_the_numbers_are_those_of_all_rows_at_once(monkeypatch, changes, biased):
    bias = None
    if biased:
        rng = np.random.default_rng(3)
        bias = jnp.asarray(rng.standard_normal((biased, 4, LENGTH, LENGTH), dtype=np.float32))
    layer = module(**changes)
    whole, at_once = run(monkeypatch, False, layer, bias)
    some, by_rows = run(monkeypatch, True, layer, bias)
    assert by_rows and not at_once
    # The gradient of the keys' bias is 0 but for rounding: sums of numbers as large as the others.
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(whole))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(some), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * largest)


def test_how_many_rows(monkeypatch):
    monkeypatch.setattr(attention, "cpu_workarounds", lambda: True)
    at_a_time = attention.rows_at_a_time
    assert at_a_time(32, 8, 512, 512) == 4  # 4 rows x 8 heads x 512 x 512 x 4 bytes: 32 MiB
    assert at_a_time(32, 12, 512, 512) == 2
    assert at_a_time(30, 4, 256, 256) == 3 and at_a_time(31, 4, 256, 256) == 0
    assert at_a_time(4, 4, 256, 256) == 2 and at_a_time(32, 4, 255, 256) == 0
    monkeypatch.setattr(attention, "cpu_workarounds", lambda: False)
    assert at_a_time(32, 4, 256, 256) == 0


def test_a_training_holds_the_weights_of_some_rows_only(monkeypatch):
    def bytes_of(long):
        monkeypatch.setattr(attention, "LONG", 1 if long else 1 << 60)
        layer, hidden = module(), jnp.zeros((32, 128, WIDTH))
        mask = jnp.ones((32, 128), bool)
        params = layer.init(jax.random.key(0), hidden, mask, train=False)
        gradient = jax.grad(lambda p: layer.apply(p, hidden, mask, train=False)[0].sum())
        return jax.jit(gradient).lower(params).compile().memory_analysis().temp_size_in_bytes

    # All weights: 32 rows x 4 heads x 128 x 128, 8.4 MB in float32, several at once.
    assert bytes_of(True) < 0.5 * bytes_of(False)
