"""Pairs of texts are encoded as transformers does; trained tokenizers add what models need."""

import numpy as np
import pytest
import tokenizers
import transformers

from jaxkd.data.tokenizers.tokenizer import folder_tokenizer, open_tokenizer

FIRST = ["the film was good", "a", "the film was very good and the other one was bad " * 3]
SECOND = ["it was", "the other film was bad , not good " * 4, "no"]
PROSE = [*FIRST, *SECOND] * 10


def saved(kind: str, folder):
    """A tokenizer of a family, saved by transformers."""
    if kind == "bert":
        words = sorted({word for text in PROSE for word in text.split()})
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
        made = transformers.BertTokenizer({token: i for i, token in enumerate(vocabulary)})
    else:
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        trained = tokenizers.ByteLevelBPETokenizer()
        trained.train_from_iterator(PROSE, vocab_size=300, special_tokens=special)
        trained.save_model(str(folder))
        files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
        if kind == "roberta":
            made = transformers.RobertaTokenizer(**files)
        elif kind == "gpt2":
            made = transformers.GPT2Tokenizer(**files, eos_token="</s>", bos_token="<s>")
        else:  # Llama 3's: a beginning before each text
            rules = tokenizers.Tokenizer.from_str(trained._tokenizer.to_str())
            rules.post_processor = tokenizers.processors.TemplateProcessing(
                single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", 0)]
            )
            made = transformers.PreTrainedTokenizerFast(
                tokenizer_object=rules, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
            )
    made.save_pretrained(folder / "saved")
    return folder / "saved"


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("max_length", [6, 12, 200])
@pytest.mark.parametrize("second", [None, SECOND], ids=["texts", "pairs"])
def test_ids_and_segments_are_those_of_transformers_own_call(kind, max_length, second, tmp_path):
    folder = saved(kind, tmp_path)
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    expected = reference(FIRST, second, truncation="longest_first", max_length=max_length)
    result = folder_tokenizer(folder).encode_pairs(FIRST, second, max_length=max_length)
    assert [ids.tolist() for ids, _ in result] == expected["input_ids"]
    zeros = [[0] * len(row) for row in expected["input_ids"]]
    assert [s.tolist() for _, s in result] == expected.get("token_type_ids", zeros)
    assert {array.dtype for row in result for array in row} == {np.dtype(np.int32)}
    if kind in ("bert", "roberta") and second:
        ids, segments = result[0]
        sep = reference.sep_token_id
        assert (ids == sep).sum() == (2 if kind == "bert" else 3)  # </s></s> between, </s> after
        assert segments.any() == (kind == "bert")


def test_pairs_that_are_none_are_refused(tmp_path):
    ours = folder_tokenizer(saved("bert", tmp_path))
    with pytest.raises(ValueError, match="3 first texts and 2 second ones"):
        ours.encode_pairs(FIRST, SECOND[:2], max_length=9)
    with pytest.raises(ValueError, match="max_length is 3, and 3 special tokens"):
        ours.encode_pairs(FIRST, SECOND, max_length=3)
    assert ours.encode_pairs([], max_length=9) == []


def trained(cache, **changes):
    return open_tokenizer(
        "trained", texts=lambda: PROSE, fingerprint="p", cache=cache, trained_size=300, **changes
    )


KINDS = {
    "masked": (dict(masked=True), "cls {} sep", "cls {} sep {} sep"),
    "masked, lossless": (dict(masked=True, lossless=True), "cls {} sep", "cls {} sep {} sep"),
    "sources": (dict(masked=False, lossless=True), "{} sep", "{} sep {} sep"),
    "prompts": (dict(masked=False), "cls {}", "cls {} {}"),
    "prompts, lossless": (
        dict(masked=False, lossless=True, layout="prompt"), "cls {}", "cls {} {}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_tokenizer_adds_what_its_models_read_and_keeps_it_when_saved(kind, tmp_path):
    changes, single, pair = KINDS[kind]
    ours = trained(tmp_path, **changes)
    a, b = (row.tolist() for row in ours.encode(["the film was good", "it was"]))

    def filled(form, *texts):
        texts, row = iter(texts), []
        for part in form.split():
            row += next(texts) if part == "{}" else [{"cls": ours.cls, "sep": ours.sep}[part]]
        return row

    ours.save(tmp_path / "saved")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    reopened = folder_tokenizer(tmp_path / "saved")
    for tokenizer in (ours.fast, again, reopened.fast):
        assert tokenizer("the film was good")["input_ids"] == filled(single, a)
        both = tokenizer("the film was good", "it was")
        assert both["input_ids"] == filled(pair, a, b)
        if single.startswith("cls") and "sep" in single:
            own = len(filled(single, a))
            assert both["token_type_ids"] == [0] * own + [1] * (len(both["input_ids"]) - own)
    assert reopened.vocab_size == ours.vocab_size
    assert (reopened.cls, reopened.sep, reopened.pad) == (ours.cls, ours.sep, ours.pad)


def test_an_unknown_layout_is_refused(tmp_path):
    with pytest.raises(ValueError, match="layout='pairs'; allowed are pair, source, prompt"):
        trained(tmp_path, layout="pairs")


def test_trimming_keeps_what_is_added(tmp_path):
    whole = trained(tmp_path)
    counts = np.bincount(np.concatenate(whole.encode(FIRST + SECOND)), minlength=whole.vocab_size)
    smaller, kept = whole.trimmed(counts)
    pairs = zip(
        whole.encode_pairs(FIRST, SECOND, max_length=40),
        smaller.encode_pairs(FIRST, SECOND, max_length=40),
        strict=True,
    )
    for (ids, segments), (fewer, same) in pairs:
        np.testing.assert_array_equal(kept[fewer], ids)
        np.testing.assert_array_equal(same, segments)
        assert segments.any()
    smaller.save(tmp_path / "saved")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert 1 in again(FIRST[0], SECOND[0])["token_type_ids"]
    whole.fast.model_max_length = 77
    assert whole.trimmed(counts)[0].fast.model_max_length == 77


def test_a_normalised_reference_is_what_a_perfect_copy_decodes_to(tmp_path):
    words = trained(tmp_path)  # WordPiece: lower case, its own spaces
    reference = "The film , was  GOOD ."
    assert words.decode(words.encode([reference])[0]) != reference
    assert words.normalise(reference) == words.decode(words.encode([reference])[0])
    assert words.normalise(words.normalise(reference)) == words.normalise(reference)
    exact = trained(tmp_path, masked=False, lossless=True)
    assert exact.normalise("The film , was  GOOD .") == "The film , was  GOOD ."


def test_saved_tokenizers_name_a_class_that_transformers_4_has(tmp_path):
    import json

    trained(tmp_path, masked=False, lossless=True).save(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(settings.get("extra_special_tokens"), list)  # an object in version 4
    assert settings["add_prefix_space"] is True  # else version 4 spells the first word otherwise
