"""Rows fed to models that read from left to right: the targets, and what they see."""

import dataclasses
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.data.rows.text import CausalText, MaskedText
from jaxkd.models import families
from jaxkd.models.model import forward
from tests.stages.small import write_corpus


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    text = CausalText(
        dir=str(write_corpus(folder / "corpus")), tokenizer="trained", trained_size=256, length=12
    )
    return text, text.open(folder / "cache"), folder / "cache"


def test_every_word_is_a_target_once_and_nothing_else(opened):
    """Trap 7: the first word of a row counts; [CLS], [SEP] and padding are never asked for."""
    _, rows, _ = opened
    tokenizer = rows.tokenizer
    structural = [tokenizer.pad, tokenizer.cls, tokenizer.sep]
    targets = []
    for batch in rows.batches("validation", 7):
        np.testing.assert_array_equal(batch.tokens[:, 1:], batch.targets[:, :-1])
        assert not np.isin(batch.tokens[batch.mask], tokenizer.pad).any()
        assert not np.isin(batch.targets[batch.target_mask], structural).any()
        assert batch.target_mask[:, 0].sum() == (batch.tokens[:, 0] == tokenizer.cls).sum()
        targets += batch.targets[batch.target_mask].tolist()
    words = np.asarray(rows.splits["validation"])
    assert targets == words[(words >= 0) & ~np.isin(words, structural)].tolist()


def test_a_prediction_sees_only_what_stands_before_its_target(opened):
    _, rows, _ = opened
    batch = jax.tree.map(jnp.asarray, next(iter(rows.batches("validation", 2))))
    config = families.FAMILIES["llama"][0](
        vocabulary=rows.tokenizer.vocab_size, layers=1, width=16, heads=2, feed_forward=16,
        max_length=16,
    )  # fmt: skip
    model = families.build(config)
    params = model.init(0)
    logits = forward(model, params, Batch(batch.tokens, batch.mask)).logits
    at = 4
    changed = batch.tokens.at[:, at + 1].add(1)  # the target of position `at`
    again = forward(model, params, Batch(changed, batch.mask)).logits
    np.testing.assert_allclose(again[:, : at + 1], logits[:, : at + 1], atol=1e-6)
    assert np.abs(again[:, at + 1] - logits[:, at + 1]).max() > 1e-4


def test_masked_and_causal_rows_are_the_same_rows(opened):
    text, rows, cache = opened
    masked = MaskedText(**dataclasses.asdict(text)).open(cache)
    for split, expected in rows.splits.items():
        expected = np.where(expected < 0, rows.tokenizer.pad, expected)
        np.testing.assert_array_equal(masked.splits[split], expected)
    assert (masked.head, rows.head) == ("masked_lm", "causal_lm")


def test_the_unigram_line_is_counted_where_models_are(opened):
    _, rows, _ = opened
    actual = rows.unigram_at_targets("validation", 7)
    np.testing.assert_allclose(actual, rows.unigram("validation"), rtol=1e-6)


GPT2 = pathlib.Path(os.environ.get("JAXKD_DATA", "")) / "tokenizers" / "gpt2"


@pytest.mark.skipif(not GPT2.is_dir(), reason="$JAXKD_DATA/tokenizers/gpt2 is not here")
def test_a_decoders_tokenizer_with_one_special_token_for_all(opened, tmp_path):
    """GPT-2's end of text begins a row and ends it, and is no padding; <unk> is spelt."""
    text, _, _ = opened
    rows = dataclasses.replace(text, tokenizer=str(GPT2)).open(tmp_path)
    tokenizer, end = rows.tokenizer, 50256
    assert (
        tokenizer.cls,
        tokenizer.sep,
        tokenizer.unk,
        tokenizer.vocab_size,
    ) == (end, end, None, 50257)
    batch = next(iter(rows.batches("train", 64)))
    assert (batch.tokens[:, 0] == end).all() and batch.mask[:, 0].all()
    assert (batch.targets[batch.target_mask] != end).all()
    output = tokenizer.fast.decode(batch.targets[0][batch.target_mask[0]])
    assert output.startswith("= Page 0 =")
    with pytest.raises(ValueError, match="has no pad_token"):
        MaskedText(**dataclasses.asdict(dataclasses.replace(text, tokenizer=str(GPT2)))).open(
            tmp_path
        )


def corpus_file(tmp_path, text, name="corpus.txt"):
    file = tmp_path / name
    file.write_text(text)
    return str(file)


def small(tmp_path, text, **more):
    settings = dict(tokenizer="trained", trained_size=256, length=16) | more
    return CausalText(train=corpus_file(tmp_path, text), **settings).open(tmp_path / "cache")


def test_documents_of_a_text_file_end_at_empty_lines(tmp_path):
    rows = small(tmp_path, "".join(f"one {i}\ntwo {i}\n\n" for i in range(40)) + "\n")
    texts = [text for split in rows.dataset.splits.values() for text in split]
    assert sorted(texts) == sorted(f"one {i}\ntwo {i}" for i in range(40))


def test_without_empty_lines_each_line_is_a_document(tmp_path):
    rows = small(tmp_path, "".join(f"line {i}\n" for i in range(40)) + "\n\n")
    texts = [text for split in rows.dataset.splits.values() for text in split]
    assert sorted(texts) == sorted(f"line {i}" for i in range(40))
    assert rows.corpus == "corpus.txt" and any("held out" in n for n in rows.dataset.notes)


def test_validation_rows_never_enter_training(tmp_path):
    rows = small(tmp_path, "".join(f"line {i % 30}\n" for i in range(90)))  # each line thrice
    train, validation = (set(rows.dataset.splits[s]) for s in ("train", "validation"))
    assert not train & validation and len(train | validation) == 30
    held_out = {tuple(row) for row in np.asarray(rows.splits["validation"])}
    feed = rows.training(seed=0, batch_size=8, masking=None)
    for step in range(60):
        batch = feed[step]
        whole = np.concatenate([batch.tokens, batch.targets[:, -1:]], 1)
        filled = np.concatenate([batch.mask, np.ones((8, 1), bool)], 1)
        assert not {tuple(r) for r in np.where(filled, whole, -1)} & held_out


def test_a_column_of_a_table_is_text(tmp_path):
    file = corpus_file(
        tmp_path, "id,body\n" + "".join(f"{i},words {i}\n" for i in range(30)), "a.csv"
    )
    text = CausalText(train=file, tokenizer="trained", trained_size=256, length=16)
    with pytest.raises(ValueError, match="data.text is empty, and the columns are id, body"):
        text.open(tmp_path / "cache")
    rows = dataclasses.replace(text, text="body").open(tmp_path / "cache")
    assert rows.origin.endswith("(column body)")


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(train="nowhere.txt"), "data.train='nowhere.txt': there is no such file"),
        (dict(validation="x.txt"), "data.train is empty: give both"),
        (dict(train="a.txt", dir="b"), "data.dir='b' and data.origin='auto' are of known corpora"),
        (dict(train="a.docx"), "there is no such file"),
        (dict(corpus="wikitext3"), "Did you mean 'wikitext2'"),
        (dict(length=2), "data.length is 2"),
        (dict(rows=-1), "data.rows is -1; it is 0 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, wrong, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        MaskedText(**wrong).open(tmp_path)
