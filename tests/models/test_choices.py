"""Loops or scans, whole or chunked attention: the same numbers by other ways."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.models import attention, families
from jaxkd.models.model import forward, keep_blocks
from jaxkd.models.stack import stack, unstack
from tests.models import tiny

SIZES = dict(
    vocabulary=61, layers=2, width=32, heads=4, feed_forward=48, max_length=40, init_std=0.2,
    dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
MORE = {
    "albert": {"embedding_width": 20},
    "qwen3": {"kv_heads": 2, "head_width": 12},
    "marian": {"encoder_layers": 2},
    "lstm": {"encoder_layers": 2},
}


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def batch(family):
    arguments = tiny.batch(length=30)
    if family in ("marian", "lstm"):
        return dataclasses.replace(
            arguments, decoder_tokens=arguments.tokens, decoder_mask=arguments.mask
        )
    return arguments


def setting(family, **changes):
    return families.FAMILIES[family][0](**(SIZES | MORE.get(family, {}) | changes))


def loss_and_gradient(config, params, arguments, **more):
    model = families.build(config)

    def loss(params):
        outputs = forward(model, params, arguments, **more)
        return jnp.mean(jax.nn.log_softmax(outputs.logits)[..., 0]), outputs.hidden

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


@pytest.mark.parametrize(
    "family, dropped",
    [
        ("bert", "some dropped"),
        slow("albert", "dropout"),
        slow("bert", "all run"),
        slow("bert", "dropout"),
        slow("qwen3", "all run"),
        slow("marian", "some dropped"),
        slow("lstm", "dropout"),
    ],
)
def test_a_scan_over_layers_gives_the_loops_numbers(family, dropped):
    rates = dict(dropout=0.3) if dropped == "dropout" else {}
    config = setting(family, **rates)
    model = families.build(config)
    params, arguments = model.init(0), batch(family)
    more = {
        "all run": {},
        "some dropped": {"keep": keep_blocks(2, 0, model.depth, 0.5)},
        "dropout": {"dropout": jax.random.key(3)},
    }[dropped]
    loop = loss_and_gradient(config, params, arguments, **more)
    scan = loss_and_gradient(
        dataclasses.replace(config, scan_layers=True), params, arguments, **more
    )
    chex.assert_trees_all_close(scan, loop, atol=1e-5, rtol=1e-4)
    if family != "albert":
        value, gradient = loss_and_gradient(
            dataclasses.replace(config, scan_layers=True), stack(params), arguments, **more
        )
        chex.assert_trees_all_close((value, unstack(gradient)), scan, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "family, kind",
    [
        ("bert", "chunked"),
        ("qwen3", "xla"),
        slow("bert", "xla"),
        slow("qwen3", "chunked"),
        slow("marian", "chunked"),
    ],
)
def test_every_kind_of_attention_gives_the_plain_ones_numbers(family, kind, monkeypatch):
    monkeypatch.setattr(attention, "CHUNK", 8)  # four chunks, the last one not full
    config = setting(family)
    params, arguments = families.build(config).init(0), batch(family)
    plain = loss_and_gradient(config, params, arguments)
    other = loss_and_gradient(dataclasses.replace(config, attention=kind), params, arguments)
    mask = np.array(arguments.mask)
    chex.assert_trees_all_close(other[0][0], plain[0][0], atol=1e-5)
    for actual, expected in zip(other[0][1], plain[0][1], strict=True):
        np.testing.assert_allclose(actual[mask], expected[mask], atol=1e-5)
    chex.assert_trees_all_close(other[1], plain[1], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    "family, kind",
    [
        ("bert", "plain"),
        slow("bert", "chunked"),
        slow("bert", "xla"),
        slow("qwen3", "plain"),
        slow("lstm", "plain"),
    ],
)
def test_a_row_of_padding_alone_is_finite_and_disturbs_no_other(family, kind):
    config = setting(family, attention=kind)
    params, arguments = families.build(config).init(0), batch(family)
    without = jnp.array(arguments.mask).at[3].set(False)
    changes = {"mask": without} | (
        {"decoder_mask": without} if arguments.decoder_tokens is not None else {}
    )
    (_, expected), _ = loss_and_gradient(config, params, arguments)
    (_, actual), gradient = loss_and_gradient(
        config, params, dataclasses.replace(arguments, **changes)
    )
    chex.assert_tree_all_finite((actual, gradient))
    where = np.array(without)
    np.testing.assert_allclose(actual[-1][where], expected[-1][where], atol=1e-5)


def compiled(family, attention, length):
    config = setting(family, attention=attention, max_length=8192, layers=2)
    model, arguments = families.build(config), tiny.batch(rows=2, length=length)
    params = jax.eval_shape(lambda: model.init(0))

    def loss(params, arguments):
        return jnp.mean(forward(model, params, arguments).hidden[-1] ** 2)

    actual = jax.jit(jax.grad(loss)).lower(params, arguments).compile().memory_analysis()
    return actual.temp_size_in_bytes


@pytest.mark.parametrize("family", ["bert", slow("llama")])
def test_memory_of_chunked_attention_grows_with_the_length_not_its_square(family):
    whole, chunked = (
        compiled(family, kind, 8192) / compiled(family, kind, 2048) for kind in ("plain", "chunked")
    )
    assert whole > 12  # towards 16
    assert chunked < 4.3  # towards 4


def test_attention_that_sees_no_single_weights_drops_none():
    with pytest.raises(ValueError, match="attention_dropout is 0.1. Set it to 0"):
        families.build(setting("bert", attention="chunked", attention_dropout=0.1))
    with pytest.raises(ValueError, match="'cudnn' computes in bfloat16; compute is 'float32'"):
        families.build(setting("bert", attention="cudnn"))
    with pytest.raises(ValueError, match="attention='flash'"):
        families.build(setting("bert", attention="flash"))
