"""A smaller vocabulary cuts what it kept as the whole one does, and models agree on it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.data.tokenizers.tokenizer import open_tokenizer
from jaxkd.data.tokenizers.trimming import trim_wordpiece, used_tokens
from jaxkd.distil.student import trim_vocabulary
from jaxkd.models import families
from jaxkd.models.model import forward

TEXTS = ["the cat likes fish", "a dog and the bird eat seeds , the cat does not"]
OTHERS = ["hats and coats", "the birds !"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return open_tokenizer(
        "trained", texts=lambda: TEXTS * 5 + OTHERS, fingerprint="t", trained_size=256,
        cache=tmp_path_factory.mktemp("trim"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trimmed(whole):
    counts = np.bincount(np.concatenate(whole.encode(TEXTS)), minlength=whole.vocab_size)
    return whole.trimmed(counts)


def test_kept_texts_are_cut_alike_and_others_are_spelt_not_lost(whole, trimmed):
    smaller, kept = trimmed
    assert smaller.vocab_size == len(kept) < whole.vocab_size
    for before, after in zip(whole.encode(TEXTS), smaller.encode(TEXTS), strict=True):
        np.testing.assert_array_equal(kept[after], before)
    for ids in smaller.encode(OTHERS):
        assert smaller.unk not in ids


def test_the_trimmed_tokenizer_is_saved_and_opened_as_it_is(trimmed, tmp_path):
    import transformers

    smaller, _ = trimmed
    smaller.save(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == smaller.fast.get_vocab()
    eos_ids = again(TEXTS[0])["input_ids"]
    assert again.mask_token_id == smaller.mask and len(again) == smaller.vocab_size
    assert set(eos_ids) <= set(range(smaller.vocab_size))


@pytest.mark.parametrize("family, head", [("bert", "masked_lm"), ("llama", "causal_lm")])
def test_a_trimmed_model_computes_the_same_for_what_is_kept(whole, trimmed, family, head):
    smaller, kept = trimmed
    config = families.FAMILIES[family][0](
        vocabulary=whole.vocab_size, layers=1, width=16, heads=2, feed_forward=16, max_length=16,
        head=head,
    )  # fmt: skip
    model = families.build(config)
    params = model.init(0)
    less = dataclasses.replace(config, vocabulary=len(kept))
    cut = trim_vocabulary(params, kept)
    families.check_shapes(families.build(less), cut, "trimmed")
    ids = smaller.encode(TEXTS[:1])[0][None]
    mask = jnp.ones(ids.shape, bool)
    expected = forward(model, params, Batch(jnp.array(kept[ids]), mask))
    result = forward(families.build(less), cut, Batch(jnp.array(ids), mask))
    jax.tree.map(np.testing.assert_array_equal, result.hidden, expected.hidden)
    np.testing.assert_allclose(result.logits, expected.logits[..., kept], atol=1e-6)


def test_what_is_kept():
    kept = used_tokens(np.array([0, 3, 0, 0, 0]), [0], ["[PAD]", "cat", "dog", "x", "##y"])
    np.testing.assert_array_equal(kept, [0, 1, 3, 4])


def test_what_cannot_be_trimmed_is_named(whole):
    rules = json.loads(whole.fast.backend_tokenizer.to_str())
    with pytest.raises(ValueError, match="special token .* must be kept"):
        trim_wordpiece(json.dumps(rules), np.array([9, 10]))
    rules["model"]["type"] = "BPE"
    with pytest.raises(ValueError, match="the tokenizer's model is BPE"):
        trim_wordpiece(json.dumps(rules), np.array([9, 10]))
