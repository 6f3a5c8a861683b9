"""Without torch a HuggingFace folder is read back and compared with what was written."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest

from jaxkd.export.formats import HuggingFace
from jaxkd.export.verify import ExportMismatch
from jaxkd.models import families
from tests.models.tiny import encoder, random_params


@pytest.fixture(autouse=True)
def without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


def test_numbers_and_settings_that_differ_are_named(tmp_path):
    config = encoder("bert", "sequence_classification")
    params = random_params(config)
    each = HuggingFace()
    each.check(config)
    each.write(tmp_path / "hf", config, params)
    verified = each.verify(tmp_path / "hf", config, params, tolerance=1e-4)
    assert verified == {"read_back": "equal", "not_compared": "transformers on torch"}
    changed = jax.tree.map(lambda x: x, params)
    changed["embed"]["position"] = np.asarray(params["embed"]["position"]) + 1e-3
    with pytest.raises(ExportMismatch, match="these differ: embed/position"):
        each.verify(tmp_path / "hf", config, changed, tolerance=1e-4)
    file = tmp_path / "hf" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"layer_norm_eps": 0.5}))
    with pytest.raises(ExportMismatch, match="config differs in layer_norm_eps"):
        each.verify(tmp_path / "hf", config, params, tolerance=1e-4)


@pytest.mark.parametrize(
    "family, changes",
    [("bert", dict(feed_forwards=(40, 16))), ("roberta", dict(position_offset=5, pad=1))],
)
def test_what_a_folder_holds_in_another_form_is_equal_too(family, changes, tmp_path):
    config = dataclasses.replace(encoder(family, "masked_lm"), **changes)
    params = families.build(config).init(0)
    each = HuggingFace()
    each.write(tmp_path / "hf", config, params)
    assert each.verify(tmp_path / "hf", config, params, tolerance=1e-4)["read_back"] == "equal"
