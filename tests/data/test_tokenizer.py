"""Token ids are BERT's; a trained vocabulary depends on its texts alone."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
import transformers

import jaxkd
from jaxkd.data.sources.embedded import embedded_documents
from jaxkd.data.tokenizers import open_folder as module
from jaxkd.data.tokenizers.tokenizer import open_tokenizer
from jaxkd.data.tokenizers.wordpiece import train_vocabulary

DATA = pathlib.Path(os.environ.get("JAXKD_DATA", ""))
BERT = DATA / "tokenizers" / "bert-base-uncased"
needs_bert = pytest.mark.skipif(
    "JAXKD_DATA" not in os.environ or not (BERT / "vocab.txt").exists(),
    reason="$JAXKD_DATA/tokenizers/bert-base-uncased is not here",
)
needs_wikitext = pytest.mark.skipif(
    "JAXKD_DATA" not in os.environ or not (DATA / "wikitext-2").is_dir(),
    reason="$JAXKD_DATA/wikitext-2 is not here",
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, "the", "cat", "##s", "un", "##k", "<", ">", "."]
THE, CAT, S, UN, K = range(5, 10)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No folder and no hub, unless a test gives one."""
    monkeypatch.delenv("JAXKD_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def unread():
    raise AssertionError("the texts were read though no vocabulary had to be trained")


def opened(name: str, cache: pathlib.Path, texts=unread, size: int = 512):
    return open_tokenizer(name, texts=texts, fingerprint="f", cache=cache, trained_size=size)


def write(folder: pathlib.Path, vocabulary=VOCABULARY) -> pathlib.Path:
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("".join(f"{x}\n" for x in vocabulary), encoding="utf-8")
    return folder


@functools.cache
def prose() -> list[str]:
    return embedded_documents()["test"]


@needs_bert
@needs_wikitext
def test_ids_of_wikitext_equal_those_of_the_tokenizers_library(tmp_path):
    text = (DATA / "wikitext-2" / "wiki.test.tokens").read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if len(line) > 40 and "<unk>" not in line][:100]
    reference = tokenizers.BertWordPieceTokenizer(str(BERT / "vocab.txt"), lowercase=True)
    expected = [reference.encode(line, add_special_tokens=False).ids for line in lines]
    tokenizer = opened(str(BERT), tmp_path)
    ids = tokenizer.encode(lines)
    assert [each.tolist() for each in ids] == expected
    assert {each.dtype for each in ids} == {np.dtype(np.int32)}
    assert tokenizer.vocab_size == 30522
    named = (tokenizer.pad, tokenizer.unk, tokenizer.cls, tokenizer.sep, tokenizer.mask)
    assert named == (0, 100, 101, 102, 103)
    assert tokenizer.special_ids == frozenset(named)


@needs_bert
def test_folder_of_the_environment_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXKD_DATA", str(DATA))
    tokenizer = opened("bert-base-uncased", tmp_path)
    named = "folder $JAXKD_DATA/tokenizers/bert-base-uncased"
    assert (tokenizer.origin, tokenizer.trained) == (named, False)


def test_unknown_words_of_wikitext_are_one_unk(tmp_path):
    tokenizer = opened(str(write(tmp_path / "t")), tmp_path)
    (ids,) = tokenizer.encode(["The <unk> cats unk."])
    assert ids.tolist() == [THE, tokenizer.unk, CAT, S, UN, K, VOCABULARY.index(".")]


def test_encode_keeps_the_order_over_many_batches(tmp_path):
    tokenizer = opened(str(write(tmp_path / "t")), tmp_path)
    ids = tokenizer.encode(["the " * n for n in range(150)])
    assert [each.tolist() for each in ids] == [[THE] * n for n in range(150)]


@pytest.mark.parametrize("extra, word", [("Cat", "Cat"), ("dog", "cat")])
def test_a_vocabulary_with_capitals_is_read_with_its_capitals(extra, word, tmp_path):
    tokenizer = opened(str(write(tmp_path / "t", [*VOCABULARY, extra])), tmp_path)
    assert tokenizer.fast.convert_ids_to_tokens(tokenizer.encode(["Cat"])[0]) == [word]


def test_saved_tokenizer_is_opened_by_transformers_and_by_us(tmp_path):
    tokenizer = opened(str(write(tmp_path / "t")), tmp_path)
    tokenizer.save(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    ids = theirs("The cats.", add_special_tokens=False)["input_ids"]
    assert (
        ids == [THE, CAT, S, VOCABULARY.index(".")] == tokenizer.encode(["The cats."])[0].tolist()
    )
    assert theirs("the")["input_ids"] == [tokenizer.cls, THE, tokenizer.sep]
    assert opened(str(tmp_path / "saved"), tmp_path).fingerprint == tokenizer.fingerprint
    (tmp_path / "saved" / "tokenizer_config.json").unlink()
    assert opened(str(tmp_path / "saved"), tmp_path).encode(["Cats"])[0].tolist() == [CAT, S]


def test_fingerprint_tells_vocabularies_apart(tmp_path):
    one = opened(str(write(tmp_path / "a")), tmp_path)
    other = opened(str(write(tmp_path / "b", [*VOCABULARY, "dog"])), tmp_path)
    assert one.fingerprint == opened(str(tmp_path / "a"), tmp_path).fingerprint != other.fingerprint


def test_local_hub_cache_needs_no_network(tmp_path):
    repository = tmp_path / "hub" / "models--someone--mini"
    write(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    tokenizer = opened("someone/mini", tmp_path)
    assert (tokenizer.origin, tokenizer.trained) == ("hub someone/mini", False)
    assert tokenizer.vocab_size == len(VOCABULARY)


def test_without_hub_a_vocabulary_is_trained_and_says_why(tmp_path):
    tokenizer = opened("bert-base-uncased", tmp_path, prose)
    assert tokenizer.trained
    assert tokenizer.origin.startswith("trained on the corpus (bert-base-uncased could not be had")
    assert "OfflineModeIsEnabled" in tokenizer.origin
    assert tokenizer.vocab_size == 512
    assert [tokenizer.fast.convert_ids_to_tokens(i) for i in range(5)] == SPECIAL
    ids = np.concatenate(tokenizer.encode(prose()))
    assert np.mean(ids == tokenizer.unk) < 0.001
    again = opened("trained", tmp_path)  # `unread`: it comes from the cache
    assert again.fingerprint == tokenizer.fingerprint
    assert again.origin == "trained on the corpus (asked for)"


def test_a_name_the_hub_denies_is_an_error_and_no_reason_to_train(tmp_path, monkeypatch):
    from huggingface_hub import errors

    def deny(*_, **__):
        raise errors.HFValidationError("no such thing")

    monkeypatch.setattr(module, "hub_files", deny)
    with pytest.raises(ValueError, match="the hub has no tokenizer 'bert-bass'"):
        opened("bert-bass", tmp_path)


def test_training_is_the_same_in_every_process(tmp_path):
    code = """
import json
from jaxkd.data.tokenizers.wordpiece import train_vocabulary
from jaxkd.data.sources.embedded import embedded_documents
print(json.dumps(train_vocabulary(embedded_documents()["test"], 2000)))
"""
    path = {"PYTHONPATH": str(pathlib.Path(jaxkd.__path__[0]).parent)}
    vocabularies = [
        json.loads(
            subprocess.run(
                [sys.executable, "-W", "error", "-c", code],
                env=os.environ | path | {"PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
                timeout=120,
            ).stdout
        )
        for seed in ("1", "2")
    ]
    assert vocabularies[0] == vocabularies[1] == train_vocabulary(prose(), 2000)
    assert len(set(vocabularies[0])) == 2000


def test_trained_vocabulary_is_lower_case_and_has_whole_words_of_the_text():
    vocabulary = train_vocabulary(["The <unk> Zebra crossed the road ."] * 20, 256)
    assert {"zebra", "crossed", "road", "the"} <= set(vocabulary)
    assert "unk" not in vocabulary
    assert all(token in SPECIAL or token == token.lower() for token in vocabulary)


def test_folder_without_vocabulary_is_an_error(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "merges.txt").touch()
    with pytest.raises(
        FileNotFoundError, match=r"holds merges\.txt; .* vocab\.txt, vocab\.json and merges"
    ):
        opened(str(tmp_path / "t"), tmp_path)
    with pytest.raises(FileNotFoundError, match="missing is not a folder"):
        opened(str(tmp_path / "missing"), tmp_path)


def test_vocabulary_without_mask_is_an_error_in_either_format(tmp_path):
    folder = write(tmp_path / "t", [token for token in VOCABULARY if token != "[MASK]"])
    with pytest.raises(ValueError, match=r"vocab\.txt lacks \[MASK\]"):
        opened(str(folder), tmp_path)
    model = tokenizers.models.WordPiece({"[UNK]": 0, "the": 1}, unk_token="[UNK]")
    tokenizers.Tokenizer(model).save(str(folder / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"tokenizer\.json lacks \[PAD\], \[CLS\]"):
        opened(str(folder), tmp_path)


def test_too_small_a_vocabulary_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"trained_size is 10; .* at least 256"):
        opened("trained", tmp_path, prose, size=10)
