"""Beam search against enumeration, and against transformers' generate."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jaxkd.core.batch import Batch
from jaxkd.decode.beam import Beam, kept_columns, searcher
from jaxkd.decode.sample import greedy
from jaxkd.hub import folder
from jaxkd.models import families
from jaxkd.models.model import forward
from tests.hub import test_decoders as decoders
from tests.hub import test_seq2seq as seq2seq

SMALL = dict(vocabulary=5, layers=2, width=16, heads=2, max_length=16, init_std=0.5, pad=0)
READS = dict(encoder_layers=1, start=1, end=2)
END = 2


def small(family, **changes):
    own = READS if family in ("marian", "bart", "lstm") else {}
    hidden = {} if family == "lstm" else dict(feed_forward=24)
    config = families.FAMILIES[family][0](**(SMALL | own | hidden | dict(dropout=0.0) | changes))
    model = families.build(config)
    return model, config, model.init(0)


def rows(lengths=(5, 2, 1), left=False):
    tokens = np.random.default_rng(0).integers(3, 5, (len(lengths), max(lengths)))
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    mask = np.ascontiguousarray(mask[:, ::-1]) if left else mask
    return Batch(jnp.array(np.where(mask, tokens, 0), jnp.int32), jnp.array(mask))


def after(model, params, prompt, continuation, read):
    """Log-probability of each token of each continuation [N, T] of one prompt."""
    count, length = continuation.shape
    text = jnp.concatenate([jnp.repeat(prompt[None], count, 0), continuation], axis=1)
    full = jnp.ones(text.shape, bool)
    if read is None:
        logits = forward(model, params, Batch(text, full)).logits
    else:
        source = jnp.repeat(read[None], count, 0)
        arguments = Batch(
            source, jnp.ones(source.shape, bool), decoder_tokens=text, decoder_mask=full
        )
        logits = forward(model, params, arguments).logits
    output = jax.nn.log_softmax(logits[:, -length - 1 : -1])
    return np.array(jnp.take_along_axis(output, continuation[..., None], axis=-1)[..., 0])


def enumerated(model, params, prompt, read, longest, penalty):
    """Every continuation that ends or is as long as can be, by score: {tokens: score}."""
    every = np.array(list(itertools.product(range(SMALL["vocabulary"]), repeat=longest)))
    each = after(model, params, prompt, jnp.array(every, jnp.int32), read)
    actual = {}
    for tokens, output in zip(every.tolist(), each, strict=True):
        length = tokens.index(END) + 1 if END in tokens else longest
        actual[tuple(tokens[:length])] = output[:length].sum() / length**penalty
    return sorted(actual.items(), key=lambda item: -item[1])


# A penalty is the search's and of no family.
@pytest.mark.parametrize(
    ("family", "penalty"),
    [(family, 0.0) for family in ("gpt2", "llama", "marian", "bart", "lstm")]
    + [("gpt2", 1.3), ("lstm", 1.3)],
)
def test_a_beam_as_wide_as_all_is_enumeration(family, penalty):
    model, config, params = small(family)
    batch, longest, best = rows(left=family == "llama"), 4, 12
    beam = Beam(
        width=300, max_tokens=longest, length_penalty=penalty, early_stopping="never", n_best=best
    )
    actual = searcher(model, config, beam, eos_ids=[END], segment=3)(params, batch)
    for i, mask in enumerate(np.array(batch.mask)):
        own = batch.tokens[i][mask]
        prompt, read = (own, None) if model.encoder is None else (jnp.array([config.start]), own)
        right = enumerated(model, params, prompt, read, longest, penalty)[:best]
        for j, (tokens, score) in enumerate(right):
            assert int(actual.lengths[i, j]) == len(tokens)
            assert tuple(actual.tokens[i, j, : len(tokens)].tolist()) == tokens
            np.testing.assert_allclose(actual.scores[i, j], score, atol=2e-5)
            whole = score * len(tokens) ** penalty
            np.testing.assert_allclose(actual.log_probability[i, j], whole, atol=1e-4)
            assert not np.any(actual.tokens[i, j, len(tokens) :])


@pytest.mark.parametrize(
    ("family", "compute"),
    [(family, "float32") for family in ("gpt2", "llama", "marian", "bart", "lstm")]
    + [("gpt2", "bfloat16"), ("bart", "bfloat16")],
)
def test_columns_that_no_beam_sees_are_thrown_out_and_change_nothing(family, compute, monkeypatch):
    model, config, params = small(family, max_length=80, compute=compute)
    batch, beam = rows(left=family == "llama"), Beam(width=4, max_tokens=36, min_tokens=30)
    once = searcher(model, config, beam, eos_ids=[END], segment=36)(params, batch)
    widths = []

    def seen(token_mask):
        kept = kept_columns(token_mask)
        widths.append((kept, token_mask.shape[-1]))
        return kept

    monkeypatch.setattr("jaxkd.decode.beam.kept_columns", seen)
    actual = searcher(model, config, beam, eos_ids=[END], segment=12)(params, batch)
    assert any(kept < present for kept, present in widths)
    assert max(present for _, present in widths) < 5 + 36 * 4
    np.testing.assert_array_equal(actual.tokens, once.tokens)
    np.testing.assert_allclose(actual.scores, once.scores, rtol=1e-5)


def test_as_many_columns_are_kept_as_the_row_that_sees_most():
    token_mask = np.zeros((2, 2, 100), bool)
    token_mask[0, 0, ::2] = token_mask[0, 1, 1::50] = True  # 50 and 2 columns
    token_mask[1, :, :10] = True
    assert kept_columns(jnp.array(token_mask)) == 64  # 52, in steps of 32


@pytest.mark.parametrize("early", ["true", "false", "never"])
def test_a_beam_of_one_is_greedy_however_it_stops(early):
    """With "never" and a penalty above 0, a longer hypothesis could replace the greedy one."""
    model, config, params = small("marian", max_length=24)
    beam = Beam(width=1, max_tokens=20, length_penalty=3.0, early_stopping=early)
    decoded = searcher(model, config, beam, eos_ids=[END, 3])(params, rows())
    likeliest = greedy(model, config, 20, eos_ids=[END, 3])(params, rows())
    assert (np.asarray(likeliest.lengths) < 20).any()
    np.testing.assert_array_equal(decoded.tokens, likeliest.tokens)
    np.testing.assert_array_equal(decoded.lengths, likeliest.lengths)


CASES = [
    ("gpt2", dict(num_beams=4)),
    ("llama, grouped", dict(num_beams=3, early_stopping=True, length_penalty=0.6)),
    ("llama, grouped", dict(num_beams=4, min_new_tokens=5, length_penalty=0.2)),
    ("qwen3", dict(num_beams=4, early_stopping="never", length_penalty=1.5)),
    ("qwen2_moe", dict(num_beams=2, length_penalty=-1.0)),
    ("marian", dict(num_beams=4, early_stopping=True)),
    ("marian, other encoder", dict(num_beams=5, early_stopping="never", length_penalty=0.0)),
    ("bart", dict(num_beams=4, bad_words_ids=[[8], [9]])),
    ("bart, scaled", dict(num_beams=1, early_stopping=True)),
    ("marian, other encoder", dict(num_beams=1, min_new_tokens=4)),  # it would end at the fourth
]


def ours_of(arguments):
    words = {"num_beams": "width", "min_new_tokens": "min_tokens"}
    arguments = {words.get(k, k): v for k, v in arguments.items() if k != "bad_words_ids"}
    if "early_stopping" in arguments:
        arguments["early_stopping"] = str(arguments["early_stopping"]).lower()
    return Beam(**arguments, max_tokens=12, n_best=arguments["width"])


@pytest.mark.parametrize(("case", "arguments"), CASES)
def test_beams_and_scores_are_those_of_transformers(case, arguments, tmp_path):
    """The end token is one that the model likes, so that sequences end early, late and never."""
    reads = case in seq2seq.CASES
    torch_model = (
        seq2seq.reference(case, tmp_path)
        if reads
        else decoders.reference(case, "causal_lm", tmp_path)
    )
    tokens, mask = seq2seq.side(seq2seq.READ) if reads else decoders.inputs(left=True)
    torch_model.generation_config.forced_eos_token_id = None
    fed = dict(inputs=torch.tensor(tokens), attention_mask=torch.tensor(mask).long())
    prompt, width = 1 if reads else tokens.shape[1], arguments["num_beams"]
    free = torch_model.generate(**fed, max_new_tokens=12, num_beams=width, eos_token_id=60)
    end = int(free[0, prompt + 3])
    settings = transformers.GenerationConfig(
        max_new_tokens=12, eos_token_id=end, pad_token_id=1,
        decoder_start_token_id=seq2seq.SIZES["start"], num_return_sequences=arguments["num_beams"],
        output_scores=True, return_dict_in_generate=True, do_sample=False, **arguments,
    )  # fmt: skip
    expected = torch_model.generate(**fed, generation_config=settings)
    config, params = folder.load(str(tmp_path))
    suppress_tokens = [word for (word,) in arguments.get("bad_words_ids", [])]
    search = searcher(
        families.build(config),
        config,
        ours_of(arguments),
        eos_ids=[end],
        pad=1,
        suppress_tokens=suppress_tokens,
        segment=5,
    )
    actual = search(params, Batch(jnp.array(tokens, jnp.int32), jnp.array(mask)))
    theirs = expected.sequences[:, prompt:].reshape(len(tokens), width, -1).numpy()
    np.testing.assert_array_equal(actual.tokens[..., : theirs.shape[-1]], theirs)
    assert np.all(actual.tokens[..., theirs.shape[-1] :] == 1)
    if width > 1:
        scores = expected.sequences_scores.reshape(len(tokens), width)
        np.testing.assert_allclose(actual.scores, scores, atol=1e-4)
    assert 1 <= np.min(actual.lengths) < 12
