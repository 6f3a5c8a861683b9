"""Blocks with feed-forwards of their own width: through forward, files, folders and bundles."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.checkpoint import layerwise
from jaxkd.distil.student import prune
from jaxkd.distil.width import narrowed
from jaxkd.export.bundle.format import Bundle
from jaxkd.export.formats import Onnx
from jaxkd.hub import folder as hub
from jaxkd.models import bert, families, gpt2, llama, modernbert, qwen2_moe, roberta
from jaxkd.models.albert import Config as Albert
from jaxkd.models.bart import Config as Bart
from jaxkd.models.model import forward
from tests.models import tiny

SHAPE = dict(vocabulary=61, layers=3, width=16, heads=2, max_length=24, feed_forwards=(8, 24, 12))
CONFIGS = {
    "bert": bert.Config(**SHAPE),
    "roberta": roberta.Config(**SHAPE | {"max_length": 26}, pad=1),
    "modernbert": modernbert.Config(**SHAPE, pad=0),
    "gpt2": gpt2.Config(**SHAPE),
    "llama": llama.Config(**SHAPE, kv_heads=1, tied=True),
}


def made(family):
    config = CONFIGS[family]
    params = families.build(config).init(0)
    drawn = np.random.default_rng(0)
    # Biases of zeros would hide a channel in the wrong place.
    return config, jax.tree.map(
        lambda x: x + 0.1 * drawn.normal(size=x.shape).astype(np.float32), params
    )


def logits(config, params):
    arrays = jax.tree.map(jnp.asarray, params)
    return np.asarray(forward(families.build(config), arrays, tiny.batch(2, 9)).logits)


@pytest.mark.parametrize("family", CONFIGS)
def test_each_block_has_its_own_width_and_padding_with_zeros_changes_nothing(family):
    config, params = made(family)
    widths = [families.build(config).blocks[i].config.feed_forward for i in range(3)]
    assert widths == [8, 24, 12]
    uniform, padded = config.for_hub(params)
    assert (uniform.feed_forward, uniform.feed_forwards) == (24, ())
    np.testing.assert_allclose(logits(uniform, padded), logits(config, params), atol=1e-5)


@pytest.mark.parametrize("family", CONFIGS)
def test_folders_and_files_and_bundles_hold_it(family, tmp_path):
    config, params = made(family)
    hub.save(tmp_path / "hub", config, params)
    loaded, again = hub.load(str(tmp_path / "hub"), on_host=True)
    np.testing.assert_allclose(logits(loaded, again), logits(config, params), atol=1e-5)
    layerwise.save(tmp_path / "orbax", params, families.describe(config))
    stored, description = layerwise.load(tmp_path / "orbax")
    assert families.from_description(description) == config
    for format_ in (Onnx(), Bundle()):
        format_.write(tmp_path / "out", config, params)
        format_.verify(tmp_path / "out", config, params, tolerance=1e-4)


def test_pruned_blocks_take_their_widths_with_them():
    config, params = made("bert")
    kept = config.keep([0, 2])
    assert kept.feed_forwards == (8, 12)
    families.check_shapes(families.build(kept), prune(params, [0, 2]), "test")
    with pytest.raises(ValueError, match="blocks of one shape"):
        narrowed(config, 1, 8, 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(feed_forwards=(8, 8)), "a number from 1 for each of the 3 blocks"),
        (dict(feed_forwards=(8, 0, 8)), "a number from 1"),
        (dict(scan_layers=True), "scan_layers needs blocks of one shape"),
    ],
)
def test_widths_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIGS["bert"], **wrong).check()


@pytest.mark.parametrize("config", [Albert, Bart, qwen2_moe.Config])
def test_models_whose_blocks_have_no_feed_forward_of_their_own_refuse(config):
    layers = config().layers
    with pytest.raises(ValueError, match="one list of blocks of their own"):
        dataclasses.replace(config(), feed_forwards=(8,) * layers).check()
