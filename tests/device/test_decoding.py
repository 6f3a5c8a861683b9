"""The runner's search writes what jaxkd's does."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.decode.beam import Beam, searcher
from jaxkd.device import decoding
from jaxkd.device.bundle import Bundle
from jaxkd.device.errors import UsageError
from jaxkd.models import families
from tests.device import bundles

END = (5, 9)
SETTINGS = [
    dict(width=1),
    dict(width=3),
    dict(width=4, length_penalty=0.0, min_tokens=3),
    dict(width=3, early_stopping="true", length_penalty=2.0),
    dict(width=3, early_stopping="never"),
]
FAMILIES = ("gpt2", "qwen3", "marian", "bart", "t5", "lstm")
# How a search goes on is of no family: all settings for one decoder and one that reads.
CASES = [
    pytest.param(family, settings, id="-".join([family, *map(str, settings.values())]))
    for family in FAMILIES
    for settings in (SETTINGS if family in ("gpt2", "marian") else SETTINGS[1:3])
]


@pytest.fixture(scope="module")
def opened(request, tmp_path_factory):
    family = request.param
    head = "seq2seq_lm" if family in ("marian", "bart", "t5", "lstm") else "causal_lm"
    folder = tmp_path_factory.mktemp(family) / "b"
    # Few tokens, so that sentences end and beams meet.
    config = bundles.config_of(family, head, vocabulary=13)
    params = bundles.write(folder, config)
    return Bundle(folder), config, params


@pytest.mark.parametrize(("opened", "settings"), CASES, indirect=["opened"])
def test_the_same_sentences_as_jaxkd(opened, settings):
    bundle, config, params = opened
    # Each length is compiled: another one than four where nothing else is tried.
    sources = [[3, 7, 2, 8], [4, 6, 11, 1]] + ([[12, 6]] if settings == SETTINGS[1] else [])
    model = families.build(config)
    beam = Beam(**settings, max_tokens=7, n_best=settings["width"])
    search = searcher(model, config, beam, eos_ids=END, suppress_tokens=(10,))
    settings_of_ours = decoding.Beam(**settings, max_tokens=7, eos_ids=END, suppress_tokens=(10,))
    for source in sources:
        tokens = np.array([source])
        batch = Batch(tokens=jnp.array(tokens, jnp.int32), mask=jnp.ones(tokens.shape, bool))
        expected = search(params, batch)
        prompt = tokens[0]
        if bundle.manifest["kind"] == "encoder-decoder":
            bundle.model.read(tokens, np.ones_like(tokens))
            prompt = np.array([config.start])
        written = decoding.search(bundle.model, settings_of_ours, prompt)
        assert len(written) == settings["width"]
        for k, (sentence, score) in enumerate(written):
            length = int(expected.lengths[0, k])
            assert sentence.tolist() == np.asarray(expected.tokens)[0, k, :length].tolist()
            assert abs(score - float(expected.scores[0, k])) < 1e-4


@pytest.mark.parametrize("opened", FAMILIES, indirect=True)
def test_impossible_requests_are_refused(opened):
    bundle, config, _ = opened
    for settings in (dict(width=0), dict(max_tokens=0), dict(min_tokens=3, max_tokens=2)):
        with pytest.raises(UsageError):
            decoding.Beam(**settings)
    with pytest.raises(UsageError, match="true, false, never"):
        decoding.Beam(early_stopping="maybe")
    if bundle.manifest["kind"] != "encoder-decoder":
        with pytest.raises(UsageError, match="longer than the model's 24"):
            bundle.model.first(np.ones(25, np.int64))
