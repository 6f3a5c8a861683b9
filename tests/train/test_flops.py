"""FLOPs by hand, from the models' shapes; padding and what a causal mask hides are not counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.models import families, llama, qwen2_moe
from jaxkd.train.flops import Flops, Needed, Part, peak, products
from tests.models import tiny


def weights(config, params, names):
    leaves = jax.tree_util.tree_flatten_with_path(params["blocks"])[0]
    return sum(x.size for path, x in leaves if any(n in str(path) for n in names) and x.ndim == 2)


@pytest.mark.parametrize("scan", [False, True])
def test_a_forward_pass_is_two_flops_a_weight_and_token(scan):
    config = tiny.config(layers=3, scan_layers=scan)
    model, batch = families.build(config), tiny.batch(rows=8, length=12, targets=4)
    params = model.init(0)
    actual = Part(1, model, model.arrange(params), causal=False).forward(batch)
    tokens = 8 * 12
    kernels = weights(config, params, ["kernel"])
    # Queries with keys and weights with values: 2 x 2 B H L L K, H K the width.
    attention = 3 * 2 * 2 * tokens * 12 * config.width
    # The transform and the vocabulary, at the four target positions alone.
    head = 2 * 8 * 4 * (config.width**2 + config.width * config.vocabulary)
    assert actual == Flops(2.0 * tokens * kernels, float(attention), float(head))


def test_what_is_padding_or_hidden_is_not_needed():
    config = llama.Config(
        vocabulary=61, layers=2, width=32, heads=4, kv_heads=2, feed_forward=48, max_length=24
    )
    model = families.build(config)
    tokens = np.ones((2, 8), np.int32)
    mask = np.arange(8) < np.array([[8], [4]])
    batch = Batch(tokens, mask, tokens, None, mask & (np.arange(8) > 0))
    part = Part(3, model, model.init(0), causal=True)
    whole = part.forward(batch)
    # 12 of 16 tokens, (8^2 + 4^2) / 2 of 8^2 pairs, of which half; 7 + 3 of 16 predictions.
    expected = 12 / 16 * whole.body + 40 / 64 / 2 * whole.attention + 10 / 16 * whole.head
    assert Needed([part])(batch) == pytest.approx(3 * expected)
    teacher = Part(1, model, model.init(0), causal=True)
    assert Needed([part, teacher])(batch) == pytest.approx(4 * expected)


def test_experts_count_by_what_a_token_goes_through():
    def body(experts):
        config = qwen2_moe.Config(
            vocabulary=61, layers=1, width=32, heads=4, kv_heads=2, experts=experts,
            experts_per_token=2, expert_width=48, shared_width=16, max_length=24,
        )  # fmt: skip
        model = families.build(config)
        batch = Batch(jnp.ones((8, 16), jnp.int32), jnp.ones((8, 16), bool))
        return Part(1, model, model.init(0), causal=True).forward(batch).body

    few, many = body(4), body(16)
    assert many < 2.5 * few  # blocks of 32 rows are filled up, which is counted


def test_a_choice_counts_its_dearest_branch_and_a_loop_its_turns():
    square = jnp.ones((4, 4))

    def chosen(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x, x)

    def looped(x):
        return jax.lax.scan(lambda x, _: (x @ x, None), x, None, length=5)[0]

    assert products(chosen, square).body == 2 * 2 * 4**3
    assert products(looped, square).body == 5 * 2 * 4**3


def test_a_cpus_peak_is_measured():
    assert 1e8 < peak("float32", 1) < 1e14
