"""Weights in one file, in shards, in torch's format: read one tensor at a time, never unpickled."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jaxkd.hub import folder
from jaxkd.hub.bert import FAMILY
from jaxkd.hub.tensors import open_tensors
from tests.models import tiny

transformers.logging.disable_progress_bar()
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def model():
    torch.manual_seed(0)
    settings = FAMILY.to_hub(tiny.config())
    return transformers.BertForMaskedLM(transformers.BertConfig(**settings)).eval()


def test_shards_are_the_whole(model, tmp_path):
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "cut", max_shard_size="20KB")
    assert len(list((tmp_path / "cut").glob("model-*.safetensors"))) > 2
    whole, cut = (folder.load(str(tmp_path / name)) for name in ("whole", "cut"))
    assert whole[0] == cut[0]
    jax.tree.map(np.testing.assert_array_equal, whole[1], cut[1])


def test_a_missing_shard_is_named(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    lost = sorted(tmp_path.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=lost.name):
        folder.load(str(tmp_path))


def test_a_truncated_file_is_named(model, tmp_path):
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors cannot be read.*Download or save"):
        folder.load(str(tmp_path))


def test_a_truncated_shard_is_named(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    file = sorted(tmp_path.glob("model-*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{file.name} cannot be read.*Download or save"):
        folder.load(str(tmp_path))


def test_torchs_own_format_and_half_precision_load(model, tmp_path):
    model.save_pretrained(tmp_path / "whole")
    _, expected = folder.load(str(tmp_path / "whole"))
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_text(json.dumps(FAMILY.to_hub(tiny.config())))
    torch.save(model.state_dict(), old / "pytorch_model.bin")
    _, result = folder.load(str(old))
    jax.tree.map(np.testing.assert_array_equal, result, expected)
    for half in (torch.bfloat16, torch.float16):
        model.to(half).save_pretrained(tmp_path / "half")
        _, rounded = folder.load(str(tmp_path / "half"))
        token = model.bert.embeddings.word_embeddings.weight.detach().float().numpy()
        np.testing.assert_array_equal(rounded["embed"]["token"], token)
        assert rounded["embed"]["token"].dtype == np.float32


def test_a_pickle_with_more_than_tensors_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(FAMILY.to_hub(tiny.config())))
    torch.save({"bert": pathlib.Path("x"), "run": print}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        folder.load(str(tmp_path))


def test_a_folder_without_weights_says_what_it_needs(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model.safetensors, no model.safetensors.index"):
        open_tensors(tmp_path)


def test_bfloat16_and_a_sharding_are_loaded_straight(model, tmp_path):
    model.save_pretrained(tmp_path)
    _, expected = folder.load(str(tmp_path))
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "data"))
    config, result = folder.load(
        str(tmp_path),
        dtype="bfloat16",
        sharding=lambda name: rows if name.endswith("kernel") else None,
    )
    kernel = result["blocks"][0]["attention"]["query"]["kernel"]
    assert kernel.sharding.is_equivalent_to(rows, 2)
    assert kernel.addressable_shards[0].data.shape == (32, 4)
    rounded = jax.tree.map(lambda x: np.array(x.astype(jnp.bfloat16)), expected)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.array, result), rounded)
    with pytest.raises(ValueError, match="dtype='float8'"):
        folder.load(str(tmp_path), dtype="float8")


def test_what_was_loaded_does_not_change_with_the_file(model, tmp_path):
    model.save_pretrained(tmp_path)
    _, params = folder.load(str(tmp_path))
    before = jax.tree.map(np.array, params)
    file = tmp_path / "model.safetensors"
    with open(file, "r+b") as stream:  # in place, as no well-behaved program does
        stream.seek(2000)
        stream.write(b"x" * (file.stat().st_size - 2000))
    jax.tree.map(np.testing.assert_array_equal, params, before)


MEASURE = """
import json, pathlib, sys, threading, time
from jaxkd.hub import folder
import jax
jax.numpy.zeros(1).block_until_ready()
def anonymous():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(x for x in lines if x.startswith("RssAnon")).split()[1])
before, peak, over = anonymous(), [0], threading.Event()
def watch():
    while not over.is_set():
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)
watcher = threading.Thread(target=watch)
watcher.start()
config, params = folder.load(sys.argv[1])
jax.block_until_ready(params)
over.set(); watcher.join()
print(json.dumps([before, peak[0], sum(x.nbytes for x in jax.tree.leaves(params))]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_a_gigabyte_takes_the_model_and_one_tensor(tmp_path):
    from jaxkd.models import families

    settings = tiny.config(vocabulary=30522, width=1024, heads=16, feed_forward=4096, layers=18)
    shapes = jax.eval_shape(lambda: families.build(settings).init(0))
    folder.save(tmp_path, settings, jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes))
    file = tmp_path / "model.safetensors"
    assert file.stat().st_size > 1e9
    (tmp_path / "measure.py").write_text(MEASURE)
    process = subprocess.run(
        [sys.executable, tmp_path / "measure.py", tmp_path],
        capture_output=True, text=True, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    before, peak, model = json.loads(process.stdout)
    largest = 30522 * 1024 * 4
    assert peak - before < model + largest + 50e6
