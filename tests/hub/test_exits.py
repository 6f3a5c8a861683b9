"""Early exits in HuggingFace folders: they come back, and transformers opens the rest."""

import jax
import numpy as np
import pytest
import torch
import transformers

from jaxkd.hub import folder
from jaxkd.models import families
from jaxkd.models.model import forward
from tests.models.test_exits import FAMILIES, batch_of_rows, config


@pytest.mark.parametrize(
    "family, pooler",
    [*((each, "own") for each in FAMILIES), ("bert", "shared"), ("llama", "shared")],
)
def test_exits_survive_a_folder_and_transformers_opens_it(family, pooler, tmp_path):
    reads = "mean" if pooler == "own" else "token"
    settings = config(family, exit_pooler=pooler, exit_reads=reads)
    model = families.build(settings)
    params, batch = model.init(0), batch_of_rows()
    folder.save(tmp_path, settings, params)
    again, loaded = folder.load(str(tmp_path))
    assert again == settings
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    opened, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert all(name.startswith("exits.") for name in info["unexpected_keys"])
    assert len(info["unexpected_keys"]) >= 4 - 2 * (family in ("gpt2", "llama"))
    tokens = torch.tensor(np.array(batch.tokens))
    mask = torch.tensor(np.array(batch.mask).astype(np.int64))
    with torch.no_grad():
        expected = opened.eval()(input_ids=tokens, attention_mask=mask).logits.numpy()
    np.testing.assert_allclose(forward(model, params, batch).logits, expected, atol=1e-4)


def test_exits_are_left_out_under_another_head_and_drawn_for_other_classes(tmp_path):
    settings = config()
    folder.save(tmp_path, settings, families.build(settings).init(0))
    bare, params = folder.load(str(tmp_path), head="masked_lm")
    assert bare.exits == () and "exit_00" not in params
    new = []
    two, params = folder.load(
        str(tmp_path), head="sequence_classification", labels=("a", "b"), new_parameters=new.extend
    )
    assert two.exits == (0, 2) and params["exit_02"]["classify"]["kernel"].shape == (16, 2)
    assert {"head/classify/kernel", "exit_00/classify/kernel"} <= set(new)
    messages = []
    turned, params = folder.load(str(tmp_path), labels=settings.labels[::-1], warn=messages.append)
    before = families.build(settings).init(0)
    for part in ("head", "exit_00", "exit_02"):
        expected = np.asarray(before[part]["classify"]["kernel"])[:, ::-1]
        np.testing.assert_array_equal(params[part]["classify"]["kernel"], expected)


def test_a_head_that_was_an_exit_of_means_has_no_folder_of_transformers(tmp_path):
    settings = config(exit_reads="mean").keep([0, 1, 2])
    with pytest.raises(ValueError, match="reads the mean of all tokens.*skip="):
        folder.save(tmp_path, settings, families.build(settings).init(0))
