"""The pure function around embedding, blocks and head: padding, targets, LayerDrop, dtypes."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxkd.core.batch import Batch
from jaxkd.core.random import stream
from jaxkd.models import bert, families, roberta
from jaxkd.models.model import forward, keep_blocks
from jaxkd.models.norms import layer_norm
from tests.models import tiny

CONFIG = tiny.config(layers=3)
MODEL = families.build(CONFIG)
PARAMS = MODEL.init(0)


def test_logits_ignore_padding():
    plain = tiny.batch(rows=2, length=6)
    plain = dataclasses.replace(plain, mask=jnp.ones((2, 6), bool))
    padded = dataclasses.replace(
        plain,
        tokens=jnp.pad(plain.tokens, ((0, 0), (0, 5)), constant_values=7),
        mask=jnp.pad(plain.mask, ((0, 0), (0, 5))),
    )
    chex.assert_trees_all_close(
        forward(MODEL, PARAMS, plain).logits, forward(MODEL, PARAMS, padded).logits, atol=1e-5
    )


def test_logits_at_targets_are_those_of_the_whole_sequence():
    batch = tiny.batch()
    everywhere = forward(MODEL, PARAMS, Batch(batch.tokens, batch.mask)).logits
    expected = jnp.take_along_axis(everywhere, batch.target_positions[..., None], axis=1)
    chex.assert_trees_all_close(forward(MODEL, PARAMS, batch).logits, expected, atol=1e-5)


def test_a_row_without_any_token_stays_finite():
    batch = tiny.batch()
    empty = dataclasses.replace(batch, mask=jnp.zeros_like(batch.mask))
    chex.assert_tree_all_finite(forward(MODEL, PARAMS, empty))


def test_kept_blocks_are_the_model_without_the_dropped_ones():
    batch = tiny.batch()
    dropped = forward(MODEL, PARAMS, batch, keep=jnp.array([True, False, True]))
    shorter = PARAMS | {"blocks": [PARAMS["blocks"][0], PARAMS["blocks"][2]]}
    two = families.build(families.with_layers(CONFIG, 2))
    short = forward(two, shorter, batch, keep=jnp.ones(2, bool))  # compiled the same way
    chex.assert_trees_all_close(dropped.logits, short.logits, atol=1e-6)
    chex.assert_trees_all_equal(dropped.hidden[1], dropped.hidden[2])


def test_a_dropped_block_gets_no_gradient():
    batch = tiny.batch()
    gradient = jax.grad(
        lambda p: forward(MODEL, p, batch, keep=jnp.array([True, False, True])).logits.sum()
    )(PARAMS)
    assert all((g == 0).all() for g in jax.tree.leaves(gradient["blocks"][1]))
    assert any((g != 0).any() for g in jax.tree.leaves(gradient["blocks"][2]))


def test_layer_drop_is_compiled_to_branches_forward_and_backward():
    """The work of a dropped block is skipped, not computed and thrown away."""
    batch = tiny.batch()

    def loss(params, keep):
        return forward(MODEL, params, batch, keep=keep).logits.sum()

    compiled = jax.jit(jax.grad(loss)).lower(PARAMS, jnp.ones(3, bool)).compile().as_text()
    assert compiled.count(" conditional(") >= 2 * 3  # each of 3 blocks, forward and backward


def test_layer_drop_drops_each_block_at_its_rate_and_repeats_by_step():
    draws = jax.vmap(lambda step: keep_blocks(0, step, 4, 0.25))(jnp.arange(4000))
    # A share of 0.75 over 4000 draws has standard error 0.0068.
    np.testing.assert_allclose(draws.mean(0), 0.75, atol=4 * 0.0068)
    chex.assert_trees_all_equal(keep_blocks(0, 7, 4, 0.25), draws[7])


def test_dropout_is_off_without_a_key_and_derived_with_one():
    model = families.build(tiny.config(layers=3, dropout=0.5, attention_dropout=0.5))
    batch = tiny.batch()
    off = forward(model, PARAMS, batch).logits
    chex.assert_trees_all_equal(off, forward(MODEL, PARAMS, batch).logits)
    on = [forward(model, PARAMS, batch, dropout=stream(0, "dropout", s)).logits for s in (1, 1, 2)]
    chex.assert_trees_all_equal(on[0], on[1])
    assert not np.allclose(on[0], on[2]) and not np.allclose(on[0], off)


def test_bfloat16_is_near_float32_and_its_logits_are_float32():
    batch = tiny.batch()
    model = families.build(tiny.config(layers=3, compute="bfloat16", init_std=0.05))
    params = families.build(tiny.config(layers=3, init_std=0.05)).init(0)
    actual, expected = forward(model, params, batch).logits, forward(MODEL, params, batch).logits
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, atol=2e-2)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(model.init(0)))


def test_block_parameters_differ_from_block_to_block_and_repeat_by_seed():
    kernels = [b["feed_forward"]["expand"]["kernel"] for b in PARAMS["blocks"]]
    assert not np.allclose(kernels[0], kernels[1])
    chex.assert_trees_all_equal(MODEL.init(0), PARAMS)
    assert not np.allclose(MODEL.init(1)["embed"]["token"], PARAMS["embed"]["token"])


@pytest.mark.parametrize(
    "changes, output",
    [
        (dict(width=30), "width 30 is not divisible by 4 heads"),
        (dict(activation="gleu"), "Did you mean 'gelu'"),
        (dict(compute="float16"), "Did you mean 'bfloat16'"),
        (dict(position="relative_key"), "Allowed: absolute"),
        (dict(layers=0), "layers is 0"),
    ],
)
def test_an_impossible_shape_is_named(changes, output):
    with pytest.raises(ValueError, match=output):
        families.build(tiny.config(**changes))


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "qwen2_moe", "modernbert"])
def test_heads_of_an_odd_width_cannot_be_turned_in_pairs(family):
    kind, _ = families.FAMILIES[family]
    sizes = dict(vocabulary=31, layers=2, width=12, heads=4, feed_forward=16, max_length=16)
    own = {} if family == "modernbert" else {"kv_heads": 2}
    own |= {"head_width": 3} if family == "qwen3" else {}
    with pytest.raises(ValueError, match="heads are 3 wide; .* even"):
        kind(**sizes, **own).check()
    families.build(families.FAMILIES["gpt2"][0](**sizes))  # learned positions need no pairs


def test_a_sequence_beyond_the_window_is_an_error():
    with pytest.raises(ValueError, match="25 tokens is longer than the model's 24 positions"):
        forward(MODEL, PARAMS, tiny.batch(length=25))


def test_a_checkpoint_of_another_shape_is_named():
    other = families.build(tiny.config(width=16)).init(0)
    with pytest.raises(ValueError, match=r"attention/key/bias: found \(16,\), needed \(32,\)"):
        families.check_shapes(MODEL, other, "the checkpoint")


def test_equal_configs_are_built_once_and_a_later_change_builds_another():
    settings = tiny.config()
    model = families.build(settings)
    assert families.build(tiny.config()) is model
    assert model.shapes is model.shapes  # traced once
    settings.width = 16
    assert model.blocks[0].config.width == 32
    assert families.build(settings).shapes["embed"]["token"].shape[1] == 16


def test_equal_blocks_are_traced_once_and_drawn_apart(monkeypatch):
    traced = []
    block = type(families.build(tiny.config()).blocks[0])
    init = block.init_with_output
    monkeypatch.setattr(
        block, "init_with_output", lambda self, *a, **k: traced.append(1) or init(self, *a, **k)
    )
    blocks = families.build(tiny.config(layers=5)).init(0)["blocks"]
    assert len(traced) == 1
    kernels = [np.asarray(each["attention"]["key"]["kernel"]) for each in blocks]
    assert len({kernel.tobytes() for kernel in kernels}) == 5


def test_a_config_survives_its_description():
    assert families.from_description(families.describe(CONFIG)) == CONFIG
    with pytest.raises(ValueError, match="Did you mean 'bert'"):
        families.from_description({"family": "brt", "config": {}})
    assert isinstance(CONFIG, bert.Config)


def test_layer_norm_keeps_its_variance_where_the_mean_is_large():
    rng = np.random.default_rng(0)
    rows = (1e3 + 0.02 * rng.normal(size=(4, 64))).astype(np.float32)
    layer = layer_norm(1e-12, jnp.float32, "norm")
    params = layer.init(jax.random.key(0), rows)
    exact = torch.nn.functional.layer_norm(torch.tensor(rows), (64,), eps=1e-12).numpy()
    # Rows are only exact to 2^-14 at 1e3, a relative 0.3% of their spread, for both alike.
    np.testing.assert_allclose(layer.apply(params, rows), exact, atol=2e-2)


def test_robertas_positions_stay_when_its_padding_id_moves(tmp_path):
    settings = roberta.Config(
        vocabulary=61, layers=1, width=32, heads=4, feed_forward=48, max_length=24, init_std=0.2
    )
    params = families.build(settings).init(0)
    batch = tiny.batch(length=12)
    logits = forward(families.build(settings), params, batch).logits
    for pad in (0, 1, 7):
        moved = dataclasses.replace(settings, pad=pad)
        same = forward(families.build(moved), params, batch).logits
        np.testing.assert_array_equal(same, logits)
        # In a HuggingFace folder positions count from the padding id: rows move with it.
        exported, shifted = moved.for_hub(params)
        assert exported.position_offset == pad + 1
        families.check_shapes(families.build(exported), shifted, "exported")
        again = forward(families.build(exported), shifted, batch).logits
        np.testing.assert_array_equal(again, logits)
    with pytest.raises(ValueError, match="position_offset is 0"):
        families.build(dataclasses.replace(settings, position_offset=0))


def test_parameters_of_another_number_of_blocks_are_refused():
    with pytest.raises(ValueError, match="the parameters have 2 blocks, and the model 3"):
        forward(MODEL, PARAMS | {"blocks": PARAMS["blocks"][:2]}, tiny.batch())
