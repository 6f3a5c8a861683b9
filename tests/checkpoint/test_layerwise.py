"""A model as a folder of elements: every family comes back as it was, and elements alone."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from jaxkd.checkpoint import layerwise
from jaxkd.models import families
from jaxkd.models.model import predict, states
from jaxkd.models.parts import join, parts
from tests.models import tiny

SIZES = dict(vocabulary=61, layers=2, width=32, heads=4, feed_forward=48, max_length=24)
WANTED = {
    "albert": {"embed", "block_00", "head"},
    "gpt2": {"embed", "block_00", "block_01", "head"},
    "t5": {
        "encoder_embed",
        "encoder_block_00",
        "encoder_head",
        "embed",
        "block_00",
        "block_01",
        "head",
    },
    "bart": {"encoder_embed", "encoder_block_00", "embed", "block_00", "block_01", "head"},
    "marian": {"encoder_block_00", "embed", "block_00", "block_01", "head"},  # nothing to embed
}
MORE = {"bart": {"encoder_layers": 1}, "marian": {"encoder_layers": 1}, "t5": {"encoder_layers": 1}}


@pytest.mark.parametrize("family", WANTED)
def test_every_element_comes_back(family, tmp_path):
    config = families.FAMILIES[family][0](**SIZES, **MORE.get(family, {}))
    params = families.build(config).init(0)
    layerwise.save(tmp_path / "kept", params, families.describe(config))
    actual, description = layerwise.load(tmp_path / "kept")
    assert families.from_description(description) == config
    assert jax.tree.structure(actual) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, actual, params)
    present = {p.name for p in (tmp_path / "kept").iterdir() if p.is_dir()}
    assert present == WANTED[family] | {"model"}


def test_a_model_without_a_head_comes_back(tmp_path):
    config = families.FAMILIES["distilbert"][0](**SIZES, head="bare")
    params = families.build(config).init(0)
    layerwise.save(tmp_path / "kept", params, families.describe(config))
    assert layerwise.load(tmp_path / "kept")[0]["head"] == {}


def test_more_than_a_hundred_blocks_keep_their_order():
    blocks = [{"norm": {"bias": np.full(1, i, np.float32)}} for i in range(101)]
    params = {"embed": {"token": np.zeros((2, 1))}, "blocks": blocks, "head": {}}
    named = parts(params)
    assert list(named)[-2:] == ["block_99", "block_100"]
    again = join(dict(sorted(named.items())))  # as a folder lists them
    assert [int(block["norm"]["bias"][0]) for block in again["blocks"]] == list(range(101))


def test_a_key_that_is_no_part_is_not_lost_in_silence(tmp_path):
    config = families.FAMILIES["bert"][0](**SIZES)
    params = families.build(config).init(0) | {"exit_00": {"classify": {"bias": np.zeros(2)}}}
    with pytest.raises(ValueError, match="the parameters have 'exit_00'. .*Allowed: .*head"):
        layerwise.save(tmp_path / "kept", params, families.describe(config))
    assert not (tmp_path / "kept").exists()


def test_a_folder_with_a_part_too_many_or_too_few_is_named(tmp_path):
    config = families.FAMILIES["gpt2"][0](**SIZES | {"layers": 3})
    params = families.build(config).init(0)
    layerwise.save(tmp_path / "kept", params, families.describe(config))
    (tmp_path / "kept" / "block_01").rename(tmp_path / "kept" / "exit_01")
    with pytest.raises(ValueError, match="kept: there is a part 'exit_01'"):
        layerwise.load(tmp_path / "kept")
    shutil.rmtree(tmp_path / "kept" / "exit_01")
    with pytest.raises(ValueError, match="there is a block_02 and no block_01"):
        layerwise.load(tmp_path / "kept")


def test_further_heads_are_parts_under_their_names():
    plain = families.build(families.FAMILIES["bert"][0](**SIZES))
    more = dataclasses.replace(plain, heads={**plain.heads, "exit_00": plain.head})
    params = more.init(0)
    assert set(params) == {"embed", "blocks", "head", "exit_00"}
    named = more.parts(params)
    assert list(named) == ["embed", "block_00", "block_01", "head", "exit_00"]
    again = join(named, tuple(more.heads))
    jax.tree.map(np.testing.assert_array_equal, again, params)
    with pytest.raises(ValueError, match="exit_00"):
        plain.parts(params)
    batch = tiny.batch()
    hidden = states(more, params, batch).hidden[1]
    logits, _ = predict(more, params, batch, hidden, head="exit_00")
    assert logits.shape == (*batch.targets.shape, SIZES["vocabulary"])


def test_on_the_host_the_same_comes_as_numpy_and_touches_no_device(tmp_path, monkeypatch):
    config = families.FAMILIES["bart"][0](**SIZES, encoder_layers=1)
    params = families.build(config).init(0)
    layerwise.save(tmp_path / "kept", params, families.describe(config))
    with monkeypatch.context() as closed:
        closed.setattr(jax, "device_put", None)
        actual, _ = layerwise.load(tmp_path / "kept", on_host=True)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(actual))
    jax.tree.map(np.testing.assert_array_equal, actual, params)


@pytest.mark.parametrize("on_host", [True, False])
def test_another_shape_is_an_error(tmp_path, on_host):
    params = {"embed": {"token": np.zeros((4, 4))}, "blocks": [], "head": {}}
    layerwise.save(tmp_path / "kept", params, {})
    with pytest.raises(ValueError, match=r"token has the shape \(4, 4\), needed is \(5, 5\)"):
        layerwise.load_part(
            tmp_path / "kept", "embed", {"token": np.zeros((5, 5))}, on_host=on_host
        )
