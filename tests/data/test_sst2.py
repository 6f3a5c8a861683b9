"""SST-2: read as GLUE writes it, fed in batches of like length, and what is refused."""

import gzip
import os
import pathlib

import numpy as np
import pytest

from jaxkd.data.corpora.glue import open_sst2
from jaxkd.data.rows.labelled import Labelled

REAL = pathlib.Path(os.environ.get("JAXKD_DATA", "")) / "glue" / "SST-2"
TRAIN = 'sentence\tlabel\na "fine" film \t1\nno\tno \t0\n'
DEV = "sentence\tlabel\ngood \t1\n"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    monkeypatch.delenv("JAXKD_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def write(folder, train=TRAIN, dev=DEV, packed=False):
    folder.mkdir(exist_ok=True)
    data = train if isinstance(train, bytes) else train.encode()
    (folder / f"train.tsv{'.gz' * packed}").write_bytes(gzip.compress(data) if packed else data)
    (folder / "dev.tsv").write_text(dev)
    return str(folder)


@pytest.mark.parametrize("packed", [False, True])
def test_sentences_and_labels_are_those_of_the_files(tmp_path, packed):
    folder = write(tmp_path / "f", packed=packed)
    found, examples, _ = open_sst2(folder, cache=tmp_path)
    assert (found.name, found.embedded) == ("SST-2", False)
    assert list(examples["train"]) == [('a "fine" film', 1), ("no\tno", 0)]
    assert list(examples["validation"]) == [("good", 1)]


@pytest.mark.skipif(not REAL.is_dir(), reason="$JAXKD_DATA/glue/SST-2 is not here")
def test_the_real_one_is_complete(tmp_path):
    _, examples, _ = open_sst2(str(REAL), cache=tmp_path)
    assert {split: len(rows) for split, rows in examples.items()} == {
        "train": 67349,
        "validation": 872,
    }
    labels = [label for _, label in examples["validation"]]
    assert sum(labels) == 444  # GLUE's dev split has 444 positive sentences of 872


@pytest.mark.parametrize(
    "train, said",
    [
        ("text\tlabel\na\t1\n", "begins with 'text.tlabel'"),
        ("sentence\tlabel\na\t2\n", "line 2 is 'a.t2'; needed is a sentence, a tab, and 0 or 1"),
        ("sentence\tlabel\nfine\n", "line 2 is 'fine'"),
        ("sentence\tlabel\n \t1\n", "line 2 is"),
        ("sentence\tlabel\n", "no rows"),
        (b"sentence\tlabel\n\xff\t1\n", "not UTF-8: byte 15 is 0xff"),
    ],
)
def test_a_file_that_is_not_sst2_is_named(tmp_path, train, said):
    with pytest.raises(ValueError, match=said):
        open_sst2(write(tmp_path / "f", train), cache=tmp_path)


def test_a_folder_without_the_files_says_what_it_has(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "test.tsv").write_text("")
    with pytest.raises(FileNotFoundError, match="holds test.tsv; needed are train.tsv and dev.tsv"):
        open_sst2(str(tmp_path / "f"), cache=tmp_path)


def opened(tmp_path, **more):
    return Labelled(source="embedded", tokenizer="trained", trained_size=300, **more).open(tmp_path)


def test_a_row_is_its_sentence_and_its_label(tmp_path):
    rows = opened(tmp_path)
    _, examples, _ = open_sst2(source="embedded", cache=tmp_path)
    its = rows.tokenizer
    for row, (sentence, label) in zip(rows.splits["train"][:50], examples["train"], strict=False):
        words = row[:-1][row[:-1] != its.pad]
        assert row[-1] == label and words[0] == its.cls and words[-1] == its.sep
        np.testing.assert_array_equal(words[1:-1], its.encode([sentence])[0][:62])
    assert rows.embedded and "embedded" in rows.corpus


def test_batches_are_as_long_as_they_need_and_count_every_row_once(tmp_path):
    rows = opened(tmp_path)
    batches = list(rows.batches("validation", 8))
    assert sum(batch.target_mask.sum() for batch in batches) == len(rows.splits["validation"])
    labels = np.concatenate([batch.targets[batch.target_mask] for batch in batches])
    assert labels.sum() == rows.splits["validation"][:, -1].sum()
    widths = [batch.tokens.shape[1] for batch in batches]
    assert widths == sorted(widths) and len(set(widths)) > 1
    assert set(widths) <= {8, 16, 24, 32, 48, 64}
    for batch in batches:
        longest = batch.mask.sum(1).max()
        assert 0 <= batch.tokens.shape[1] - longest < max(8, batch.tokens.shape[1] / 3)


def test_the_line_of_a_model_that_does_not_read_is_the_labels_entropy(tmp_path):
    rows = opened(tmp_path)
    np.testing.assert_allclose(rows.unigram("validation"), np.log(2), atol=1e-3)


def test_a_length_that_gives_no_buckets_is_named(tmp_path):
    with pytest.raises(ValueError, match="data.length is 60"):
        opened(tmp_path, length=60)
