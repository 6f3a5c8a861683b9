"""Models with early exits: each is the head of the model that ends there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.checkpoint import layerwise
from jaxkd.checkpoint.series import Series
from jaxkd.distil.student import prune
from jaxkd.models import families
from jaxkd.models.model import forward
from tests.models import tiny

CLASSIFIER = dict(head="sequence_classification", labels=("no", "perhaps", "yes"))
FAMILIES = ("bert", "distilbert", "roberta", "albert", "modernbert", "gpt2", "llama")


def config(family="bert", **more):
    kind = families.FAMILIES[family][0]
    settings = dict(
        vocabulary=61, layers=4, width=16, heads=2, feed_forward=24, max_length=32, pad=1
    )
    return kind(**(settings | CLASSIFIER | dict(pad=1, exits=(0, 2)) | more))


def batch_of_rows():
    batch = tiny.batch()
    tokens = jnp.where(batch.mask, jnp.maximum(batch.tokens, 3), 1)  # no padding id inside a text
    return dataclasses.replace(batch, tokens=tokens, target_positions=None, segments=None)


@pytest.mark.parametrize(
    "family, pooler",
    [*((each, "own") for each in FAMILIES), ("bert", "shared"), ("llama", "shared")],
)
def test_an_exit_is_the_head_of_the_model_that_ends_at_its_block(family, pooler):
    settings = config(family, exit_pooler=pooler)
    params, batch = families.build(settings).init(0), batch_of_rows()
    outputs = forward(families.build(settings), params, batch)
    assert list(outputs.exits) == ["exit_00", "exit_02"]
    for name, blocks in (("exit_00", [0]), ("exit_02", [0, 1, 2])):
        shorter = dataclasses.replace(families.with_layers(settings, len(blocks)), exits=())
        head = {**params["head"], **params[name]}
        kept = [params["blocks"][0 if settings.shared_blocks else i] for i in blocks]
        kept = kept[:1] if settings.shared_blocks else kept
        alone = {"embed": params["embed"], "blocks": kept, "head": head}
        expected = forward(families.build(shorter), alone, batch).logits
        np.testing.assert_allclose(outputs.exits[name], expected, atol=1e-6)
    assert set(params["exit_00"]) == ({"classify"} if pooler == "shared" else set(params["head"]))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exit_that_reads_the_mean_is_the_head_at_the_mean_of_all_tokens(family):
    settings = config(family, exit_reads="mean")
    model, batch = families.build(settings), batch_of_rows()
    params = model.init(0)
    outputs = forward(model, params, batch)
    first = families.build(dataclasses.replace(settings, exit_reads="token"))
    by_token = forward(first, params, batch)
    np.testing.assert_array_equal(outputs.logits, by_token.logits)  # the head is as it was
    mask = np.asarray(batch.mask)
    for name, i in (("exit_00", 1), ("exit_02", 3)):
        states = np.asarray(outputs.hidden[i], np.float64)
        mean = np.stack([row[counts].mean(0) for row, counts in zip(states, mask, strict=True)])
        alone = mean[:, None].astype(np.float32)
        head = model.heads[name].apply(
            {"params": params[name]},
            jnp.asarray(alone),
            params["embed"]["token"],
            jnp.asarray(mask[:, :1]),
        )
        np.testing.assert_allclose(outputs.exits[name], head, atol=1e-5)
        assert np.abs(outputs.exits[name] - by_token.exits[name]).max() > 1e-3


@pytest.mark.parametrize(
    "family, blocks", [("bert", [0, 2]), ("albert", [0, 1, 2]), ("llama", [0, 2])]
)
def test_pruned_to_an_exit_that_reads_the_mean_a_model_predicts_what_the_exit_did(family, blocks):
    settings = config(family, exit_reads="mean", exits=(0, 2) if family == "albert" else (2,))
    params, batch = families.build(settings).init(0), batch_of_rows()
    kept = settings.keep(blocks)
    assert kept.head_reads == "mean"
    if family != "albert":  # whose third turn always has that exit
        assert settings.keep([0, 1, 3]).head_reads == "token"
    pruned = prune(params, blocks) if family != "albert" else prune(params, [0, 1, 2])
    logits = forward(families.build(kept), pruned, batch).logits
    if family == "albert":  # the same block three times: the exit of the third turn
        expected = forward(families.build(settings), params, batch).exits["exit_02"]
    else:
        cut = dataclasses.replace(settings, layers=2, exits=(), head_reads="mean")
        alone = {
            "embed": params["embed"],
            "blocks": [params["blocks"][i] for i in blocks],
            "head": params["exit_02"],
        }
        expected = forward(families.build(cut), alone, batch).logits
    np.testing.assert_allclose(logits, expected, atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_a_scanned_model_has_the_same_exits(family):
    settings = config(family)
    params, batch = families.build(settings).init(0), batch_of_rows()
    expected = forward(families.build(settings), params, batch).exits
    scanned = families.build(dataclasses.replace(settings, scan_layers=True))
    actual = forward(scanned, scanned.arrange(params), batch).exits
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), actual, expected)


def test_exits_stay_with_their_blocks_and_the_last_ones_is_the_head():
    settings = config(layers=6, exits=(0, 1, 3, 4))
    params, batch = families.build(settings).init(0), batch_of_rows()
    for blocks, exits in (([0, 2, 4], (0,)), ([1, 3, 5], (0, 1)), ([0, 2], (0,))):
        kept = settings.keep(blocks)
        assert kept.exits == exits
        pruned = prune(params, blocks)
        families.check_shapes(families.build(kept), pruned, "pruned")
        for i in exits:
            assert pruned[f"exit_{i:02d}"] is params[f"exit_{blocks[i]:02d}"]
        last = params.get(f"exit_{blocks[-1]:02d}", params["head"])
        jax.tree.map(np.testing.assert_array_equal, pruned["head"], last)
        forward(families.build(kept), pruned, batch)


def test_albert_keeps_an_exit_for_each_turn():
    settings = config("albert", layers=6, exits=(0, 1, 3))
    params = families.build(settings).init(0)
    kept, pruned = settings.keep([0, 2, 4]), prune(params, [0, 2, 4])
    assert kept.exits == (0, 1)
    families.check_shapes(families.build(kept), pruned, "pruned")
    assert pruned["exit_01"] is params["exit_01"]


def test_exits_are_in_checkpoints(tmp_path):
    settings = config(exit_pooler="shared")
    params = families.build(settings).init(0)
    Series(tmp_path).save(0, params, families.describe(settings))
    again, description = layerwise.load(Series(tmp_path).latest())
    assert families.from_description(description) == settings
    jax.tree.map(np.testing.assert_array_equal, again, params)
    parts = {path.name for path in Series(tmp_path).latest().iterdir() if path.is_dir()}
    assert {"exit_00", "exit_02"} <= parts


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(exits=(3,)), r"exits is \(3,\); allowed are ascending blocks from 0 to 2"),
        (dict(exits=(1, 0)), "ascending"),
        (dict(exits=(1, 1)), "ascending"),
        (dict(exits=(-1,)), "ascending"),
        (dict(head="masked_lm"), "the head is masked_lm"),
        (dict(exit_pooler="none"), "exit_pooler='none'"),
        (dict(exit_reads="all"), "exit_reads='all'"),
        (dict(head="masked_lm", exits=(), head_reads="mean"), "head_reads='mean' is of"),
    ],
)
def test_exits_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        families.build(config(**changes))
