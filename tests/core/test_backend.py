"""What is written differently for a CPU's compiler: one switch, and the same results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.backend import cpu_workarounds
from jaxkd.core.outputs import Projection
from jaxkd.models.attention import attend, write_columns
from jaxkd.models.products import scores

DRAW = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(DRAW.normal(size=shape), jnp.bfloat16)


QUERY, KEY, VALUE = normal(2, 2, 1, 8), normal(2, 2, 64, 8), normal(2, 2, 64, 8)
CASES = {
    "a head's products": lambda: Projection(normal(3, 8), normal(50, 8)).logits,
    "scores": lambda: lambda: scores(QUERY, KEY),
    "a cache": lambda: lambda: write_columns(KEY, VALUE[:, :, :2], 5),
    "a cached query": lambda: (
        lambda: attend(QUERY, KEY, VALUE, jnp.ones((2, 1, 64), bool), cached=True)[0]
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_switch_changes_how_it_is_computed_and_not_what(name, monkeypatch):
    function = CASES[name]()
    programs, results = [], []
    for value in ("1", "0"):
        monkeypatch.setenv("JAXKD_CPU_WORKAROUNDS", value)
        assert cpu_workarounds() == (value == "1" and jax.default_backend() == "cpu")
        programs.append(str(jax.make_jaxpr(lambda: function())()))
        results.append(np.asarray(jax.jit(lambda: function())(), np.float32))
    if jax.default_backend() == "cpu":
        assert programs[0] != programs[1]
    np.testing.assert_allclose(results[0], results[1], rtol=2e-2, atol=2e-2)
