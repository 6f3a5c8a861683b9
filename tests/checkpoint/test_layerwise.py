"""A model as a folder of elements: every family comes back as it was, and elements alone."""

import jax
import numpy as np
import pytest

from jaxkd.checkpoint import layerwise
from jaxkd.models import families

SIZES = dict(vocabulary=61, layers=2, width=32, heads=4, feed_forward=48, max_length=24)
WANTED = {
    "albert": {"embed", "block_00", "head"},
    "gpt2": {"embed", "block_00", "block_01", "head"},
    "bart": {"encoder_embed", "encoder_block_00", "embed", "block_00", "block_01", "head"},
    "marian": {"encoder_block_00", "embed", "block_00", "block_01", "head"},  # nothing to embed
}
MORE = {"bart": {"encoder_layers": 1}, "marian": {"encoder_layers": 1}}


@pytest.mark.parametrize("family", WANTED)
def test_every_element_comes_back(family, tmp_path):
    config = families.FAMILIES[family][0](**SIZES, **MORE.get(family, {}))
    params = families.build(config).init(0)
    layerwise.save(tmp_path / "kept", params, families.describe(config))
    found, description = layerwise.load(tmp_path / "kept")
    assert families.from_description(description) == config
    assert jax.tree.structure(found) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    there = {p.name for p in (tmp_path / "kept").iterdir() if p.is_dir()}
    assert there == WANTED[family] | {"model"}


def test_a_model_without_a_head_comes_back(tmp_path):
    config = families.FAMILIES["distilbert"][0](**SIZES, head="bare")
    params = families.build(config).init(0)
    layerwise.save(tmp_path / "kept", params, families.describe(config))
    assert layerwise.load(tmp_path / "kept")[0]["head"] == {}


def test_more_than_a_hundred_blocks_keep_their_order(tmp_path):
    params = {
        "embed": {"token": np.zeros(2)},
        "blocks": [{"bias": np.full(1, i, np.float32)} for i in range(101)],
        "head": {},
    }
    layerwise.save(tmp_path / "kept", params, {})
    names = layerwise.blocks_in(tmp_path / "kept")
    assert names[-2:] == ["block_99", "block_100"]


def test_on_the_host_the_same_comes_as_numpy_and_touches_no_device(tmp_path, monkeypatch):
    config = families.FAMILIES["bart"][0](**SIZES, encoder_layers=1)
    params = families.build(config).init(0)
    layerwise.save(tmp_path / "kept", params, families.describe(config))
    with monkeypatch.context() as closed:
        closed.setattr(jax, "device_put", None)
        found, _ = layerwise.load(tmp_path / "kept", on_host=True)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize("on_host", [True, False])
def test_another_shape_is_an_error(tmp_path, on_host):
    params = {"embed": {"token": np.zeros((4, 4))}, "blocks": [], "head": {}}
    layerwise.save(tmp_path / "kept", params, {})
    with pytest.raises(ValueError, match=r"token has the shape \(4, 4\), needed is \(5, 5\)"):
        layerwise.load_part(
            tmp_path / "kept", "embed", {"token": np.zeros((5, 5))}, on_host=on_host
        )
