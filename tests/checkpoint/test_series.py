"""Checkpoints: layer by layer, exact, and never used when cut off or damaged."""

import json
import os
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.checkpoint import layerwise, series
from jaxkd.checkpoint.series import Series
from jaxkd.distil.step import initial_state
from jaxkd.models import families
from jaxkd.train.optimiser import AdamW
from tests.models import tiny

CONFIG = tiny.config(layers=3)
PARAMS = families.build(CONFIG).init(0)
DESCRIBED = families.describe(CONFIG)


def saved(folder: pathlib.Path, steps=(1, 2, 3), **options):
    output: list[str] = []
    kept = Series(folder, warn=output.append, **options)
    for step in steps:
        params = jax.tree.map(lambda x, step=step: x + step, PARAMS)
        kept.save(step, params, DESCRIBED, data={"next_index": step})
    return kept, output


def test_a_model_is_a_folder_for_each_of_its_parts(tmp_path):
    kept, _ = saved(tmp_path, [5])
    parts = {p.name for p in kept.latest().iterdir() if p.is_dir()}
    assert parts == {"embed", "block_00", "block_01", "block_02", "head", "model", "data"}


def test_what_is_restored_is_what_was_saved(tmp_path):
    kept, _ = saved(tmp_path)
    params, described = layerwise.load(kept.latest())
    chex.assert_trees_all_equal(params, jax.tree.map(lambda x: x + 3, PARAMS))
    assert families.from_description(described) == CONFIG
    assert layerwise.load_json(kept.latest(), "data") == {"next_index": 3}


def test_one_block_restores_alone_into_another_model(tmp_path):
    kept, _ = saved(tmp_path, [0])
    block = layerwise.load_part(kept.latest(), "block_02")
    chex.assert_trees_all_equal(block, PARAMS["blocks"][2])
    with pytest.raises(FileNotFoundError, match="no element 'block_07'. It has: block_00"):
        layerwise.load_part(kept.latest(), "block_07")


def test_the_optimiser_state_comes_back_in_its_own_types(tmp_path):
    state = initial_state(PARAMS, AdamW().build(PARAMS, 10, ["embed/position"]))
    kept = Series(tmp_path)
    content = {"step": state.step, "optimiser": state.optimiser}
    kept.save(1, state.params, DESCRIBED, state=content)
    actual = layerwise.load_part(kept.latest(), "state", content)
    chex.assert_trees_all_equal(actual, content)
    assert jax.tree.structure(actual) == jax.tree.structure(content)


def test_only_the_newest_are_kept(tmp_path):
    saved(tmp_path, range(1, 6), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["00000004", "00000005"]


@pytest.mark.parametrize("harm", ["flip a byte", "truncate", "delete"])
@pytest.mark.parametrize("part", ["embed", "block_01", "data"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, harm, part):
    kept, output = saved(tmp_path)
    newest = kept.latest()
    file = max(
        (f for f in (newest / part).rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
    )
    content = bytearray(file.read_bytes())
    if harm == "flip a byte":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif harm == "truncate":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    assert kept.latest().name == "00000002"
    assert len(output) == 1 and str(newest) in output[0] and "damaged" in output[0]
    assert not output[0].startswith("checkpoint None")


def test_a_checkpoint_cut_off_before_its_digests_is_not_used(tmp_path):
    kept, output = saved(tmp_path)
    (tmp_path / "00000003.sha256.json").unlink()
    assert kept.latest().name == "00000002"
    assert "not finished" in output[0]
    kept.save(3, PARAMS, DESCRIBED)  # the resumed run writes it anew
    assert kept.latest().name == "00000003"


def test_a_half_written_digest_file_is_not_a_digest_file(tmp_path):
    kept, _ = saved(tmp_path)
    file = tmp_path / "00000003.sha256.json"
    file.write_text(file.read_text()[:40])
    assert kept.latest().name == "00000002"


def test_nothing_saved_is_nothing_found(tmp_path):
    assert Series(tmp_path / "absent").latest() is None


def test_a_full_disk_is_said_and_the_older_checkpoints_kept(tmp_path, monkeypatch):
    kept, _ = saved(tmp_path)

    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device")

    monkeypatch.setattr(series.layerwise, "save", full)
    with pytest.raises(OSError, match="no space left on the disk.*step 4.*intact"):
        kept.save(4, PARAMS, DESCRIBED)
    assert kept.latest().name == "00000003"


def test_too_small_a_disk_is_said_before_any_work(tmp_path):
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with pytest.raises(OSError, match="MB free, and the checkpoints need about"):
        series.check_space(tmp_path, 2 * free)
    series.check_space(tmp_path, 1000)


def test_bytes_are_counted_from_shapes_and_types():
    assert layerwise.nbytes({"a": np.zeros((3, 2), np.float32), "b": jnp.zeros(5, jnp.int8)}) == 29
    assert json.loads(json.dumps(DESCRIBED)) == DESCRIBED
