"""Every recipe of docs/extend.md, followed from outside the tree; expected values are others'."""

import dataclasses
import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from sklearn.metrics import brier_score_loss

from jaxkd.core.batch import Batch
from jaxkd.data.rows.text import CORPORA
from jaxkd.distil.step import initial_state, make_step
from jaxkd.hub import folder
from jaxkd.models import bert, families
from jaxkd.models.model import forward
from jaxkd.train.optimiser import AdamW
from jaxkd.train.parallel import jitted
from tests.extend import recipes

RECIPES = ("family", "loss", "data_set", "metric", "stage", "experiment")


@pytest.fixture
def registries():
    """What a recipe registers is taken back."""
    tables = (folder.HUB, families.FAMILIES, CORPORA)
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


def test_there_is_a_recipe_of_each_kind():
    assert tuple(recipes.codes()) == RECIPES


def test_a_family(registries, tmp_path):
    family = recipes.load("family", tmp_path)
    torch.manual_seed(0)
    settings = transformers.MistralConfig(
        vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=None,
        max_position_embeddings=64,
    )  # fmt: skip
    model = transformers.MistralForCausalLM(settings).eval()
    model.save_pretrained(tmp_path / "model")
    config, params = folder.load(str(tmp_path / "model"))
    assert type(config) is family.Config and config.kv_heads == 2
    ids = np.random.default_rng(0).integers(0, 99, (2, 9)).astype(np.int32)
    mask = np.ones_like(ids, bool)
    logits = forward(families.build(config), params, Batch(jnp.array(ids), jnp.array(mask))).logits
    with torch.no_grad():
        expected = model(torch.tensor(ids.astype(np.int64))).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)

    folder.save(tmp_path / "again", config, params)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()
    assert type(again) is transformers.MistralForCausalLM
    with torch.no_grad():
        rewritten = again(torch.tensor(ids.astype(np.int64))).logits.numpy()
    np.testing.assert_array_equal(rewritten, expected)

    model.config.sliding_window = 16
    model.save_pretrained(tmp_path / "windowed")
    with pytest.raises(ValueError, match="sliding_window"):
        folder.load(str(tmp_path / "windowed"))

    with pytest.raises(ValueError, match="mistral"):  # a name is registered once
        folder.register(dataclasses.replace(folder.HUB["mistral"]))


def test_a_loss(tmp_path):
    loss = recipes.load("loss", tmp_path)
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 7)).astype(np.float32), rng.integers(0, 7, 5)
    values = loss.SmoothedLabels(smoothing=0.2).values(jnp.array(logits), None, jnp.array(labels))
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(labels), reduction="none", label_smoothing=0.2
    )
    np.testing.assert_allclose(values, expected.numpy(), atol=1e-6)

    config = bert.Config(
        vocabulary=50, layers=1, width=16, heads=2, feed_forward=32, head="masked_lm", max_length=16
    )
    model = families.build(config)
    params, optimiser = model.init(0), AdamW().build(model.init(0), steps=10)
    ids = rng.integers(5, 50, (2, 8)).astype(np.int32)
    everywhere = np.ones_like(ids, bool)
    batch = Batch(ids, everywhere, targets=ids, target_mask=everywhere)
    losses = []
    for chunk in (0, 4):
        terms = {"ce": loss.SmoothedLabels()}
        step = jitted(make_step(model, terms, optimiser, seed=0, chunk=chunk))
        _, metrics = step(initial_state(params, optimiser), None, batch)
        losses.append(float(metrics["loss"].compute()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_data_set(registries, tmp_path):
    module = recipes.load("data_set", tmp_path)
    texts = tmp_path / "texts"
    texts.mkdir()
    for split, number in (("train", 40), ("validation", 5), ("test", 5)):
        poems = (f"the rose number {i}\nis {split} red and blue" for i in range(number))
        (texts / f"{split}.txt").write_text("\n\n".join(poems))
    rows = dataclasses.replace(module.data, dir=str(texts)).open(tmp_path / "cache")
    assert set(rows.splits) == {"train", "validation", "test"}
    assert rows.splits["train"].shape[1] == 33
    batch = next(rows.training(seed=0, batch_size=4).start(0))
    assert batch.tokens.shape[0] == 4
    first = rows.splits["train"][0]
    assert "rose" in rows.tokenizer.decode(first[first >= 0])


def test_a_metric(tmp_path):
    metric = recipes.load("metric", tmp_path)
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(9, 2)).astype(np.float32), rng.integers(0, 2, 9)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    values = metric.brier(jnp.array(logits), None, jnp.array(labels))
    expected = 2 * brier_score_loss(labels, probabilities[:, 1])  # scikit-learn's is of one class
    assert float(values.mean()) == pytest.approx(expected, abs=1e-6)
    assert metric.task.primary == "accuracy"
    assert metric.task.describe()["brier"]["higher_is_better"] is False


@pytest.mark.slow
def test_a_stage_and_its_experiment(tmp_path):
    recipes.write("stage", tmp_path)
    experiment = recipes.write("experiment", tmp_path)
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(tmp_path), str(recipes.ROOT))), "XLA_FLAGS": "",
        "JAXKD_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    env.pop("JAXKD_DATA", None)
    done = subprocess.run(
        [sys.executable, str(recipes.ROOT / "run.py"), "--config", f"{experiment}:smoke"],
        cwd=tmp_path, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "runs/experiment-smoke/results.json").read_text())
    assert results["models"]["soup"]["layers"] == results["models"]["first_half"]["layers"]
    assert "soup against one" in (tmp_path / "runs/experiment-smoke/report.md").read_text()
