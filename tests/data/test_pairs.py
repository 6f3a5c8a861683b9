"""Pairs of texts: read from parallel files, cut into subwords that spell them, and batched."""

import gzip
import json
import os
import pathlib

import numpy as np
import pytest
import tokenizers
import transformers

from jaxkd.data.rows.masking import Masking
from jaxkd.data.rows.pairs import Instructions, Pairs
from jaxkd.data.tokenizers.tokenizer import Tokenizer
from jaxkd.decode.suppressed import suppressed_tokens
from tests.data.test_corpora import open_pairs
from tests.experiments import folders

REAL = pathlib.Path(os.environ.get("JAXKD_DATA", "")) / "multi30k"
EN = ["A dog runs.", "Two men, one hat", "A child's red ball!"]
QA = [("2 + 2?", "4"), ("3 + 4?", "7"), ("Why?", "So.")]
DE = ["Ein Hund läuft.", "Zwei Männer, ein Hut", "Der rote Ball eines Kindes!"]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    monkeypatch.delenv("JAXKD_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def write(folder, en=EN, de=DE, packed=False):
    folder.mkdir(exist_ok=True)
    for split in ("train", "val", "test"):
        for language, lines in (("en", en), ("de", de)):
            data = "".join(f"{line}\n" for line in lines).encode()
            file = folder / f"{split}.{language}{'.gz' * packed}"
            file.write_bytes(gzip.compress(data) if packed else data)
    return str(folder)


def opened(tmp_path, **more):
    settings = dict(trained_size=300, read=48, write=56) | more
    return Pairs(dir=write(tmp_path / "f"), **settings).open(tmp_path / "cache")


@pytest.mark.parametrize("packed", [False, True])
def test_line_i_of_one_language_goes_with_line_i_of_the_other(tmp_path, packed):
    folder = write(tmp_path / "f", packed=packed)
    actual, pairs = open_pairs("multi30k", folder, cache=tmp_path)
    assert not actual.embedded
    assert list(pairs["train"]) == [(a, (b,)) for a, b in zip(EN, DE, strict=True)]
    _, back = open_pairs("multi30k", folder, languages=("de", "en"), cache=tmp_path)
    assert list(back["test"]) == [(b, (a,)) for a, b in zip(EN, DE, strict=True)]


@pytest.mark.skipif(not REAL.is_dir(), reason="$JAXKD_DATA/multi30k is not here")
def test_the_real_one_is_complete(tmp_path):
    actual, pairs = open_pairs("multi30k", str(REAL), cache=tmp_path)
    assert actual.name == actual.expected == "Multi30k en-de"
    assert {k: len(v) for k, v in pairs.items()} == dict(train=29000, validation=1014, test=1000)
    assert pairs["test"][0] == (
        "A man in an orange hat starring at something.",
        ("Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",),
    )


def test_unequal_files_empty_lines_and_unknown_languages_are_named(tmp_path):
    with pytest.raises(ValueError, match="train.en has 3 lines, train.de has 2: line i of one"):
        Pairs(dir=write(tmp_path / "a", de=DE[:2])).open(tmp_path)
    with pytest.raises(ValueError, match="train.de, line 2 is empty: there is nothing to transl"):
        Pairs(dir=write(tmp_path / "b", de=[DE[0], " ", DE[2]])).open(tmp_path)
    with pytest.raises(FileNotFoundError, match="no train.fr .* Allowed: de, en. Set config.data"):
        Pairs(dir=write(tmp_path / "c"), languages=("en", "fr")).open(tmp_path)
    with pytest.raises(ValueError, match="corpus='multi30'. Did you mean 'multi30k'"):
        Pairs(corpus="multi30").open(tmp_path)
    folder = write(tmp_path / "d")
    (tmp_path / "d" / "val.de").write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match="val.de is not UTF-8: byte 0 is 0xff"):
        Pairs(dir=folder).open(tmp_path)
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "train.en").write_text("a\n")
    (tmp_path / "e" / "train.de").write_text("b\n")
    with pytest.raises(FileNotFoundError, match="needed are val or valid or validation or dev"):
        Pairs(dir=str(tmp_path / "e")).open(tmp_path)


def test_a_text_longer_than_the_window_is_an_error_or_cut(tmp_path):
    with pytest.raises(
        ValueError, match=r"row 1 of the train split has \d+ tokens .* data.read is 8"
    ):
        opened(tmp_path, read=8)
    rows = opened(tmp_path, read=8, cut=True)
    assert rows.lengths(rows.splits["train"])[0, 0] == 8
    assert rows.splits["train"][0, 7] == rows.tokenizer.sep


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(read=20), "data.read is 20; needed is a multiple of 8"),
        (dict(languages=("en",)), "a source and a target"),
        (dict(shares=(0.5,)), "shares that rise to 1"),
        (dict(trained_size=200), "a vocabulary of subwords needs 261"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, **wrong)


def test_tokens_spell_the_texts_again_case_marks_and_all(tmp_path):
    rows = opened(tmp_path)
    for row, source, target in zip(rows.splits["train"], EN, DE, strict=True):
        read, written = row[: rows.source_columns], row[rows.source_columns :]
        assert rows.tokenizer.decode(read[read >= 0]) == source
        assert rows.tokenizer.decode(written[written >= 0]) == target
    assert rows.tokenizer.decode(rows.tokenizer.encode(["łódź 東京 🙂"])[0]) == "łódź 東京 🙂"


def test_the_decoder_is_shown_the_beginning_and_asked_for_all_up_to_the_end(tmp_path):
    rows = opened(tmp_path)
    batch = rows.draw(rows.splits["train"], np.random.default_rng(0), None)
    known = rows.tokenizer
    assert batch.tokens.shape[1] % 8 == 0 and batch.targets.shape == batch.decoder_tokens.shape
    for i in range(3):
        requested = batch.targets[i][batch.target_mask[i]]
        token_mask = batch.decoder_tokens[i][batch.decoder_mask[i]]
        assert requested[-1] == known.sep and token_mask[0] == known.cls
        np.testing.assert_array_equal(token_mask[1:], requested[:-1])
        assert batch.tokens[i][batch.mask[i]][-1] == known.sep
    assert rows.config_overrides == {
        "vocabulary": known.vocab_size, "pad": known.pad, "start": known.cls, "end": known.sep
    }  # fmt: skip


def test_batches_take_few_widths_and_every_row_once(tmp_path):
    rows = Pairs(origin="embedded", trained_size=600, read=64, write=72, rows=500).open(tmp_path)
    feed = rows.training(seed=0, batch_size=20, masking=Masking())
    batches = [feed[i] for i in range(25)]  # one epoch
    widths = {(b.tokens.shape[1], b.targets.shape[1]) for b in batches}
    assert widths <= set(rows.widths) and 1 < len(rows.widths) <= 4
    drawn = sorted(tuple(t[m].tolist()) for b in batches for t, m in zip(b.tokens, b.mask))  # noqa: B905
    present = sorted(tuple(r[r >= 0].tolist()) for r in rows.splits["train"][:, :64])
    assert drawn == present
    token_mask = sum(b.target_mask.sum() for b in batches) / sum(
        b.target_mask.size for b in batches
    )
    whole = (rows.splits["train"][:, 64:] >= 0).mean()
    assert token_mask > 2 * whole  # little padding
    counted = sum(b.target_mask.sum() for b in rows.batches("test", 64))
    assert counted == (rows.splits["test"][:, 64:] >= 0).sum()


def test_new_targets_go_with_their_sources(tmp_path):
    rows = opened(tmp_path)
    targets = np.full((4, 3), -1, np.int32)
    targets[:, 0] = [10, 11, 12, 13]
    targets[:, 1] = rows.tokenizer.sep
    new = rows.with_targets(targets, [2, 2, 0, 1], "made up")
    assert new.fingerprint != rows.fingerprint
    made, old = new.splits["train"], rows.splits["train"]
    np.testing.assert_array_equal(made[:, :48], old[[2, 2, 0, 1], :48])
    np.testing.assert_array_equal(made[:, 48:51], targets)
    assert (made[:, 51:] == -1).all()
    np.testing.assert_array_equal(new.splits["test"], rows.splits["test"])


def test_the_unigram_line_is_that_of_the_targets(tmp_path):
    rows = opened(tmp_path)
    targets = rows.splits["train"][:, 48:]
    counts = np.bincount(targets[targets >= 0], minlength=rows.tokenizer.vocab_size) + 1
    nats = -np.log(counts / counts.sum())[targets[targets >= 0]].mean()
    assert rows.unigram("validation") == pytest.approx(nats)
    assert json.dumps(rows.describe())


def test_joined_for_a_decoder_a_target_follows_its_source(tmp_path):
    """Each target's token stands right after the place that is to predict it."""
    rows = opened(tmp_path, joined=" in German:", shares=(1.0,))
    assert (rows.head, list(rows.config_overrides)) == ("causal_lm", ["vocabulary"])
    chosen = rows.splits["train"]
    batch = rows.draw(chosen, np.random.default_rng(0), Masking())
    known = rows.tokenizer
    for i, (source, target) in enumerate(zip(EN, DE, strict=True)):
        ids = batch.tokens[i][batch.mask[i]]
        assert ids[-1] == known.sep and known.sep not in ids[:-1]
        assert known.decode(ids) == f"{source} in German: {target}"
        requested = batch.target_mask[i]
        after = batch.tokens[i][batch.target_positions[i][requested] + 1]
        np.testing.assert_array_equal(after, batch.targets[i][requested])
        assert known.decode(batch.targets[i][requested]) == target
    read = rows.sources(chosen)
    assert [known.decode(a[b]) for a, b in zip(read.tokens, read.mask, strict=True)] == [
        f"{source} in German:" for source in EN
    ]


def test_what_is_cut_of_a_joined_source_is_not_the_words_between(tmp_path):
    rows = opened(tmp_path, joined=" in German:", read=16, cut=True, shares=(1.0,))
    read = rows.sources(rows.splits["train"])
    assert (read.mask.sum(1) == 16).any()
    for tokens, mask in zip(read.tokens, read.mask, strict=True):
        assert rows.tokenizer.decode(tokens[mask]).endswith(" in German:")
    with pytest.raises(ValueError, match="leaves no room"):
        opened(tmp_path, joined=" in German: " * 9, read=32, cut=True)


def pairs_table(tmp_path, name="pairs.jsonl", first="question", second="sql", count=40):
    file = tmp_path / name
    rows = [{first: f"how many {i}", second: f"select {i}"} for i in range(count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_a_table_of_your_own_holds_a_tenth_out_and_says_so(tmp_path):
    file = pairs_table(tmp_path)
    rows = Pairs(train=file, source="question", target="sql", trained_size=300).open(tmp_path / "c")
    assert rows.corpus == "pairs.jsonl" and not rows.embedded and rows.dataset.expected == ""
    sizes = {split: len(each) for split, each in rows.splits.items()}
    assert sizes["train"] + sizes["validation"] == 40 and 0 < sizes["validation"] < 12
    assert any("no validation file was given; 10%" in note for note in rows.dataset.notes)
    train = {tuple(row) for row in np.asarray(rows.splits["train"])}
    assert not train & {tuple(row) for row in np.asarray(rows.splits["validation"])}


def test_two_files_of_lines_are_pairs(tmp_path):
    folder = write(tmp_path / "f")
    files = f"('{folder}/train.en','{folder}/train.de')"
    rows = Pairs(
        train=files, validation=f"{folder}/val.en,{folder}/val.de", trained_size=300, read=48,
        write=56,
    ).open(tmp_path / "c")  # fmt: skip
    assert rows.references("train") == [(text,) for text in DE]
    assert rows.corpus == "train.en and train.de"


def test_prompts_and_answers_are_joined(tmp_path):
    file = pairs_table(tmp_path, "qa.jsonl", "prompt", "answer")
    rows = Instructions(train=file, trained_size=300).open(tmp_path / "c")
    assert rows.form == "continuation"
    batch = rows.draw(np.asarray(rows.splits["train"][:1]), np.random.default_rng(0), None)
    number = rows.texts("train", [0])[0]
    text = rows.tokenizer.decode(batch.tokens[0][batch.mask[0]])
    assert text.split() == " ".join(number).split()


def test_a_column_that_is_not_named_is_found_or_asked_for(tmp_path):
    with pytest.raises(ValueError, match="data.source is empty, and the columns are question, sql"):
        Pairs(train=pairs_table(tmp_path)).open(tmp_path / "c")
    rows = Pairs(train=pairs_table(tmp_path), source="question", trained_size=300)
    assert rows.open(tmp_path / "c").origin.endswith("(source question; target sql)")
    with pytest.raises(ValueError, match="data.target='sqll'. Did you mean 'sql'"):
        Pairs(train=pairs_table(tmp_path), source="question", target="sqll").open(tmp_path / "c")


def tokenizer_folder(folder, template):
    folders.byte_tokenizer(template, unk_token="<unk>", mask_token="<mask>").save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_a_beginning_is_seen_by_a_tokenizer_without_latin_letters():
    special = {"<s>": 0, "</s>": 1, "д": 2, "а": 3}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(special, []))
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>"
    )
    assert Tokenizer(fast, "folder x", False, "x").prefix == (0,)


@pytest.mark.parametrize("template, beginning", [("<s> $A </s>", 1), ("$A </s>", 0)])
def test_both_sides_are_encoded_as_the_models_own_tokenizer_does(tmp_path, template, beginning):
    fast = tokenizer_folder(tmp_path / "named", template)
    rows = opened(tmp_path, tokenizer=str(tmp_path / "named"))
    assert rows.tokenizer.prefix == rows.target_beginning == (0,) * beginning
    # What targets begin with is written too; a model from scratch does not start with it as well.
    size = rows.tokenizer.vocab_size
    suppressed = suppressed_tokens(rows.tokenizer, size, beginning=rows.target_beginning)
    assert (0 in suppressed) != beginning and {2, 4} <= set(suppressed)
    assert rows.config_overrides["start"] == beginning
    for row, source, target in zip(rows.splits["train"], EN, DE, strict=True):
        read, written = row[:48], row[48:]
        assert read[read >= 0].tolist() == fast(source)["input_ids"]
        assert written[written >= 0].tolist() == fast(text_target=target)["input_ids"]


def test_a_prompt_begins_as_the_decoders_own_tokenizer_begins_texts(tmp_path):
    fast = tokenizer_folder(tmp_path / "named", "<s> $A")
    file = tmp_path / "qa.jsonl"
    file.write_text("".join(json.dumps({"prompt": q, "answer": a}) + "\n" for q, a in QA))
    settings = dict(train=str(file), validation=str(file), tokenizer=str(tmp_path / "named"))
    rows = Instructions(read=16, write=16, **settings).open(tmp_path / "cache")
    for row, (question, answer) in zip(rows.splits["train"], QA, strict=True):
        read, written = row[:16], row[16:]
        assert read[read >= 0].tolist() == fast(question + "\n")["input_ids"]
        assert fast.decode(written[written >= 0]) == f" {answer}</s>"
