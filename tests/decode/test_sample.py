"""Sampling against transformers and enumeration: what is drawn, how often, and with which key."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from jaxkd.core.batch import Batch
from jaxkd.decode.beam import Beam, searcher
from jaxkd.decode.sample import Sample, greedy, sampler, truncated
from jaxkd.models import families
from tests.decode.test_beam import END, after, rows, small
from tests.hub import test_decoders as decoders
from tests.hub import test_seq2seq as seq2seq


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@pytest.mark.parametrize("top_k, top_p", [(5, 1.0), (0, 0.7), (6, 0.8), (1, 1.0), (0, 1e-6)])
def test_what_is_left_to_draw_from_is_what_transformers_leaves(top_k, top_p):
    logits = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32) * 3
    expected = torch.tensor(logits) / 0.7
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    actual = truncated(jnp.array(logits), Sample(temperature=0.7, top_k=top_k, top_p=top_p))
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "marian", "lstm"])
def test_tokens_come_as_often_as_the_model_says(family):
    """All sequences of two tokens of a vocabulary of five, 20,000 draws: within 4 deviations."""
    model, config, params = small(family)
    one, count = rows((3,)), 20_000
    many = Batch(*(jnp.repeat(x, count, 0) for x in (one.tokens, one.mask)))
    draw = jax.jit(sampler(model, config, Sample(max_tokens=2), eos_ids=[END]))
    actual = draw(params, many, keys(count))
    every = jnp.array([[a, b] for a in range(5) for b in range(5)], jnp.int32)
    read = None if model.encoder is None else one.tokens[0]
    prompt = one.tokens[0] if read is None else jnp.array([config.start])
    output = after(model, params, prompt, every, read)
    shares = {}
    for pair, (first, second) in zip(every.tolist(), output, strict=True):
        key = (END,) if pair[0] == END else tuple(pair)
        shares[key] = shares.get(key, 0) + np.exp(first + second)
    drawn = actual.tokens[:, 0].tolist()
    lengths = actual.lengths[:, 0].tolist()
    seen = [tuple(tokens[:length]) for tokens, length in zip(drawn, lengths, strict=True)]
    for sequence, share in shares.items():
        deviation = np.sqrt(share * (1 - share) / count)
        assert abs(seen.count(sequence) / count - share) < 4 * deviation + 1e-9
    for sequence, log_probability in set(zip(seen, actual.log_probability[:, 0].tolist())):  # noqa: B905
        np.testing.assert_allclose(np.exp(log_probability), shares[sequence], rtol=1e-3)


@pytest.mark.parametrize("case", ["gpt2", "llama, grouped", "marian", "bart"])
def test_greedy_is_that_of_transformers(case, tmp_path):
    from jaxkd.hub import folder

    reads = case in seq2seq.CASES
    model = (
        seq2seq.reference(case, tmp_path)
        if reads
        else decoders.reference(case, "causal_lm", tmp_path)
    )
    tokens, mask = seq2seq.side(seq2seq.READ) if reads else decoders.inputs(left=True)
    model.generation_config.forced_eos_token_id = None
    start = dict(decoder_start_token_id=seq2seq.SIZES["start"]) if reads else {}
    arguments = dict(inputs=torch.tensor(tokens), attention_mask=torch.tensor(mask).long())
    arguments |= dict(max_new_tokens=10, do_sample=False, num_beams=1, pad_token_id=1) | start
    prompt = 1 if reads else tokens.shape[1]
    free = model.generate(**arguments, eos_token_id=60)
    end = int(free[0, prompt + 1])
    expected = model.generate(**arguments, eos_token_id=end)[:, prompt:].numpy()
    config, params = folder.load(str(tmp_path))
    write = greedy(families.build(config), config, 10, eos_ids=[end], pad=1)
    actual = write(params, Batch(jnp.array(tokens, jnp.int32), jnp.array(mask)))
    np.testing.assert_array_equal(actual.tokens[:, 0, : expected.shape[1]], expected)
    assert np.all(actual.tokens[:, 0, expected.shape[1] :] == 1)
    assert np.min(actual.lengths) < 10


def test_a_row_hangs_on_its_own_key_alone():
    model, config, params = small("gpt2", vocabulary=40)
    batch, drawn = rows((5, 2, 1)), keys(3)
    draw = jax.jit(sampler(model, config, Sample(max_tokens=6), eos_ids=[END]))
    whole = draw(params, batch, drawn)
    alone = draw(params, Batch(batch.tokens[1:2, :2], batch.mask[1:2, :2]), drawn[1:2])
    np.testing.assert_array_equal(whole.tokens[1], alone.tokens[0])
    other = draw(params, batch, keys(3, seed=1))
    assert np.any(whole.tokens != other.tokens)


def test_the_end_token_does_not_come_too_early_and_suppressed_ones_never():
    model, config, params = small("llama")
    batch = rows((2,) * 64)
    draw = sampler(
        model, config, Sample(max_tokens=6, min_tokens=4), eos_ids=[END], suppress_tokens=[0, 4]
    )
    actual = jax.jit(draw)(params, batch, keys(64))
    assert np.min(actual.lengths) == 5  # four, and the end
    for tokens, length in zip(actual.tokens[:, 0], actual.lengths[:, 0], strict=True):
        assert not set(tokens[: int(length)].tolist()) & {0, 4}


@pytest.mark.parametrize("family", ["gpt2", "marian", "lstm"])
def test_several_devices_find_what_one_finds(family):
    model, config, params = small(family, vocabulary=30)
    batch = rows((5, 2, 1, 4, 3, 5, 1, 2))
    beam = Beam(width=3, max_tokens=7, n_best=2)
    one, four = (
        searcher(model, config, beam, eos_ids=[END], segment=3, devices=devices)(params, batch)
        for devices in (1, 4)
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), one, four)
    with pytest.raises(ValueError, match="8 rows do not divide over 3 devices"):
        searcher(model, config, beam, eos_ids=[END], devices=3)(params, batch)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(top_p=0.0), "top_p=0.0"),
        (dict(temperature=-1.0), "temperature=-1.0"),
        (dict(max_tokens=0), "max_tokens 0"),
        (dict(min_tokens=9, max_tokens=8), "min_tokens is 9"),
    ],
)
def test_a_sample_that_is_none_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Sample(**wrong).check()
