"""Weights in one file, in shards, in torch's format: read one tensor at a time, never unpickled."""

import json
import pathlib

import jax
import numpy as np
import pytest
import torch
import transformers

from jaxkd.hub import folder
from jaxkd.hub.bert import FAMILY
from jaxkd.hub.tensors import open_tensors
from tests.models import tiny

transformers.logging.disable_progress_bar()


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


def test_torchs_own_format_and_half_precision_load(model, tmp_path):
    model.save_pretrained(tmp_path / "whole")
    _, wanted = folder.load(str(tmp_path / "whole"))
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_text(json.dumps(FAMILY.to_hub(tiny.config())))
    torch.save(model.state_dict(), old / "pytorch_model.bin")
    _, found = folder.load(str(old))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
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
