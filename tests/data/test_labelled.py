"""Labelled texts: GLUE's nine and tables of one's own, in batches of like length; and refusals."""

import csv
import gzip
import json
import os
import pathlib

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import transformers

from jaxkd.data.corpora.glue import CORPORA, TASKS
from jaxkd.data.rows.labelled import Labelled
from jaxkd.data.sources.find import find

REAL = pathlib.Path(os.environ.get("JAXKD_DATA", "")) / "glue"
BERT = REAL.parent / "tokenizers" / "bert-base-uncased"
TRAIN = 'sentence\tlabel\na "fine" film \t1\nbad, bad \t0\n'
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


def resolved(folder, cache, corpus="sst2"):
    actual = find(CORPORA[corpus], folder, "auto", cache)
    return actual, {split: list(rows) for split, rows in actual.splits.items()}


def opened(tmp_path, **more):
    settings = dict(tokenizer="trained", trained_size=300) | more
    return Labelled(**settings).open(tmp_path / "cache")


@pytest.mark.parametrize("packed", [False, True])
def test_sentences_and_labels_are_those_of_the_files(tmp_path, packed):
    actual, rows = resolved(write(tmp_path / "films", packed=packed), tmp_path)
    assert rows["train"] == [(('a "fine" film',), "positive"), (("bad, bad",), "negative")]
    assert rows["validation"] == [(("good",), "positive")]
    assert (actual.name, actual.expected, actual.embedded) == ("films", "SST-2", False)


@pytest.mark.skipif(not REAL.is_dir(), reason="$JAXKD_DATA/glue is not here")
@pytest.mark.parametrize(
    "name, sizes, texts, whole",
    [  # as the folders' own READMEs count them
        ("cola", dict(train=8551, validation=1043, test=1063), 1, True),
        ("mrpc", dict(train=3668, validation=408, test=1725), 2, True),
        ("rte", dict(train=2490, validation=277, test=3000), 2, True),
        ("sst2", dict(train=67349, validation=872, test=1821), 1, True),
        ("stsb", dict(train=5749, validation=1500, test=1379), 2, True),
        ("wnli", dict(train=635, validation=71, test=146), 2, True),
        ("mnli", 9815, 2, False),
        ("qnli", 5463, 2, False),
        ("qqp", 23496, 2, False),  # of 23,497 rows one has too few columns
    ],
)
def test_the_real_ones_are_complete_or_said_to_be_subsets(name, sizes, texts, whole, tmp_path):
    actual, rows = resolved(str(REAL / TASKS[name].name), tmp_path, name)
    counts = {split: len(each) for split, each in rows.items()}
    assert (counts == sizes) if whole else counts["train"] + counts["validation"] == sizes
    assert any("a subset" in note for note in actual.notes) == (not whole)
    assert (actual.name == TASKS[name].name) == whole or not CORPORA[name].known
    for split in ("train", "validation"):
        assert all(len(each[0]) == texts for each in rows[split])
        labels = {label for _, label in rows[split]}
        if TASKS[name].labels:
            assert labels == set(TASKS[name].labels)
        else:
            assert min(labels) >= 0 and max(labels) <= 5
    assert all(label is None for _, label in rows.get("test", ()))
    if name == "sst2":  # GLUE's dev split has 444 positive sentences of 872
        assert sum(label == "positive" for _, label in rows["validation"]) == 444


@pytest.mark.parametrize(
    "train, message",
    [
        ("text\tlabel\na\t1\n", "train.tsv, line 2: no field 'sentence'; it has: text, label"),
        ("sentence\tlabel\na\t2\n", "line 2: the label is '2'; SST-2 has negative, positive"),
        ("sentence\tlabel\na\t-1\n", "line 2: the label is '-1': the row has none"),
        ("sentence\tlabel\nfine\n", "line 2 has 1 fields, and there are 2 columns"),
        ("sentence\tlabel\n \t1\n", "line 2: sentence is empty"),
        ("sentence\tlabel\n", "a header and no rows"),
        (b"sentence\tlabel\n\xff\t1\n", "not UTF-8: byte 15 is 0xff .line 2"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, train, message):
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, dir=write(tmp_path / "f", train))


def test_a_folder_without_the_files_says_what_it_has(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "other.tsv").write_text("")
    with pytest.raises(FileNotFoundError, match="holds other.tsv; needed are train.tsv and dev.t"):
        opened(tmp_path, dir=str(tmp_path / "f"))


def test_a_row_is_its_sentence_and_its_label(tmp_path):
    rows = opened(tmp_path, origin="embedded")
    tokenizer = rows.tokenizer
    source = list(rows.dataset.splits["train"])[:50]
    for row, ((sentence,), label) in zip(rows.splits["train"][:50], source, strict=True):
        words = row[:-1][row[:-1] != tokenizer.pad]
        assert rows.labels[row[-1]] == label
        assert words[0] == tokenizer.cls and words[-1] == tokenizer.sep
        np.testing.assert_array_equal(words[1:-1], tokenizer.encode([sentence])[0][:62])
    assert rows.embedded and "embedded" in rows.corpus


def test_batches_are_as_long_as_they_need_and_count_every_row_once(tmp_path):
    rows = opened(tmp_path, origin="embedded")
    batches = list(rows.batches("validation", 8))
    assert sum(batch.target_mask.sum() for batch in batches) == len(rows.splits["validation"])
    labels = np.concatenate([batch.targets[batch.target_mask] for batch in batches])
    np.testing.assert_array_equal(
        labels, rows.splits["validation"][rows.order("validation")][:, -1]
    )
    widths = [batch.tokens.shape[1] for batch in batches]
    assert widths == sorted(widths) and len(set(widths)) > 1
    assert set(widths) <= {8, 16, 24, 32, 48, 64}
    for batch in batches:
        longest = batch.mask.sum(1).max()
        assert 0 <= batch.tokens.shape[1] - longest < max(8, batch.tokens.shape[1] / 3)


def test_a_part_of_a_sorted_split_has_every_class(tmp_path):
    lines = [f"word {i % 7}\t{int(i >= 50)}" for i in range(100)]
    rows = opened(
        tmp_path, dir=write(tmp_path / "f", dev="sentence\tlabel\n" + "\n".join(lines) + "\n")
    )
    labels = np.concatenate([b.targets[b.target_mask] for b in rows.batches("validation", 8, 10)])
    assert sorted(labels) == [0] * 5 + [1] * 5


def test_the_line_of_a_model_that_does_not_read_is_the_labels_entropy(tmp_path):
    rows = opened(tmp_path, origin="embedded")
    np.testing.assert_allclose(rows.unigram("validation"), np.log(2), atol=1e-3)
    assert json.dumps(rows.describe())


@pytest.mark.skipif(not BERT.is_dir(), reason="$JAXKD_DATA/tokenizers is not here")
def test_a_pair_of_texts_is_what_transformers_makes_of_it(tmp_path):
    """ids, segments and what is cut: those of the tokenizer's own call."""
    rows = opened(tmp_path, corpus="rte", dir=str(REAL / "RTE"), tokenizer=str(BERT), length=32)
    tokenizer = transformers.BertTokenizerFast(str(BERT / "vocab.txt"))
    numbers = rows.order("validation", 40)
    batch = next(iter(rows.batches("validation", 40, 40)))
    for i, texts in enumerate(rows.texts("validation", numbers)):
        expected = tokenizer(*texts, truncation="longest_first", max_length=32)
        mask = batch.mask[i]
        assert batch.tokens[i][mask].tolist() == expected["input_ids"]
        assert batch.segments[i][mask].tolist() == expected["token_type_ids"]
        assert not batch.segments[i][~mask].any()


# Tables of one's own.

REVIEWS = [("so good", "positive"), ("rather bad", "negative"), ("very, very good", "positive")]


def table(tmp_path, name="reviews.csv", rows=None, columns=("text", "label")):
    every = [(f"{text} {i}", label) for i in range(10) for text, label in REVIEWS]
    rows, file = every if rows is None else rows, tmp_path / name
    if ".parquet" in name:
        content = [dict(zip(columns, row, strict=True)) for row in rows]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), file)
        return str(file)
    if ".jsonl" in name:
        text = "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
    elif ".tsv" in name:
        text = "".join("\t".join(map(str, row)) + "\n" for row in [columns, *rows])
    else:
        plain = file.with_suffix(".plain")
        with open(plain, "w", newline="") as stream:
            csv.writer(stream).writerows([columns, *rows])
        text = plain.read_text()
    data = text.encode()
    file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(file)


@pytest.mark.parametrize(
    "name",
    ["r.csv", "r.csv.gz", "r.tsv", "r.tsv.gz", "r.jsonl", "r.jsonl.gz", "r.parquet"],
)
def test_every_format_gives_the_same_rows(tmp_path, name):
    rows = opened(tmp_path, train=table(tmp_path, name))
    assert rows.labels == ("negative", "positive") and rows.corpus == name
    sizes = {split: len(each) for split, each in rows.splits.items()}
    assert sum(sizes.values()) == 30 and sizes["validation"] == 3  # a tenth of each class
    texts = {row for split in rows.dataset.splits.values() for row in split}
    assert ((("very, very good 4",), "positive")) in texts and len(texts) == 30


def test_a_tenth_of_each_class_is_held_out_whatever_the_order(tmp_path):
    rows = [(f"text {i}", "rare" if i % 10 == 0 else "common") for i in range(300)]
    one = opened(tmp_path, train=table(tmp_path, "a.csv", rows))
    other = opened(tmp_path, train=table(tmp_path, "b.csv", rows[::-1]))
    held_out = [set(each.dataset.splits["validation"]) for each in (one, other)]
    assert held_out[0] == held_out[1] and len(held_out[0]) == 30
    assert sum(label == "rare" for _, label in held_out[0]) == 3
    assert not held_out[0] & set(one.dataset.splits["train"])


def test_a_text_that_is_there_twice_is_never_on_both_sides(tmp_path):
    rows = [(f"text {i % 20}", "ab"[i % 2 if i < 20 else 0]) for i in range(80)]
    actual = opened(tmp_path, train=table(tmp_path, "a.csv", rows)).dataset.splits
    train, held_out = ({row[0] for row in actual[s]} for s in ("train", "validation"))
    assert held_out and not train & held_out


def test_a_tfds_builders_folder_opens(tmp_path):
    import tensorflow_datasets as tfds

    class Reviews(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Reviews."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"text": tfds.features.Text(), "label": tfds.features.Text()}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples(30), "validation": self._generate_examples(6)}

        def _generate_examples(self, count):
            for i in range(count):
                text, label = REVIEWS[i % 3]
                yield i, {"text": f"{text} {count} {i}", "label": label}

    tfds.disable_progress_bar()
    builder = Reviews(data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare()
    rows = opened(tmp_path, train=str(builder.data_path))
    assert {split: len(each) for split, each in rows.splits.items()} == dict(train=30, validation=6)
    assert rows.origin.startswith("TFDS folder") and rows.labels == ("negative", "positive")


def test_numbers_are_scores(tmp_path):
    rows = [(f"text {i}", i / 10) for i in range(40)]
    actual = opened(tmp_path, train=table(tmp_path, rows=rows), regression=True)
    assert actual.form == "regression" and actual.labels == ("score",)
    batch = next(iter(actual.batches("train", 64)))
    expected = sorted(label for _, label in actual.dataset.splits["train"])
    np.testing.assert_allclose(sorted(batch.targets[batch.target_mask]), expected, rtol=1e-6)
    assert batch.targets.dtype == np.float32 and json.dumps(actual.describe())


def test_integers_are_classes_in_their_order(tmp_path):
    rows = [(f"text {i}", str([10, 2, 1][i % 3])) for i in range(40)]
    assert opened(tmp_path, train=table(tmp_path, rows=rows)).labels == ("1", "2", "10")


def test_two_columns_are_a_pair_of_texts(tmp_path):
    rows = [(f"a {i}", f"b {i}", "xy"[i % 2]) for i in range(40)]
    file = table(tmp_path, "nli.jsonl", rows, ("premise", "hypothesis", "label"))
    actual = opened(tmp_path, train=file, text="('premise','hypothesis')")
    batch = next(iter(actual.batches("train", 8)))
    assert batch.segments.max() == 1 and actual.pairs
    with pytest.raises(ValueError, match="data.text is empty, and the columns are premise, hypo"):
        opened(tmp_path, train=file)


@pytest.mark.parametrize(
    "rows, settings, message",
    [
        ([("a", "x"), ("", "y")], {}, r"r.csv, line 3: text is empty"),
        ([("a", "x"), ("b", "")], {}, r"r.csv, line 3: label is empty"),
        ([("a", "x"), ("b", "-1")], {}, "line 3: label is -1, which marks rows without a label"),
        ([("a", "x"), ("b", "x")], {}, "every row of the training split has the label 'x'"),
        ([(f"a{i}", f"w{i}") for i in range(50)], {}, "50 different labels in 50 rows"),
        ([("a", "x"), ("b", "y")], dict(regression=True), "label is 'x', which is no number"),
        ([("a", "1"), ("b", "nan")], dict(regression=True), "no finite number"),
        ([("a", "x")], dict(label="lable"), "data.label='lable'. Did you mean 'label'"),
        ([("a", "x")], dict(text="txt"), "data.text='txt'. Did you mean 'text'"),
        ([("a", "x")], dict(text="a,b,c"), "a row has one text or two"),
        ([("a", "x")], dict(dir="f"), "of known corpora and would not be read"),
    ],
)
def test_bad_rows_and_settings_are_named_before_work(tmp_path, rows, settings, message):
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, train=table(tmp_path, "r.csv", rows), **settings)


def test_a_label_that_only_validation_has_is_named(tmp_path):
    other = table(tmp_path, "more.csv", [("a", "positive"), ("b", "mixed")])
    with pytest.raises(ValueError, match="more.csv, line 3: the label 'mixed' is not in the train"):
        opened(tmp_path, train=table(tmp_path), validation=other)


@pytest.mark.parametrize(
    "content, message",
    [
        ("text,text\na,b\n", "line 1: the header is 'text', 'text'.* 'text' is there twice"),
        ("text,label\na,b,c\n", "line 2 has 3 fields, and there are 2 columns .text, label"),
        ('text,label\n"a,b\n', "line 2: unexpected end of data"),
        ("text,label\n", "a header and no rows"),
    ],
)
def test_a_ragged_table_is_named(tmp_path, content, message):
    (tmp_path / "r.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, train=str(tmp_path / "r.csv"))


def test_a_field_may_hold_commas_quotes_and_line_ends(tmp_path):
    rows = [(f'one "{i}",\ntwo', "xy"[i % 2]) for i in range(30)]
    actual = opened(tmp_path, train=table(tmp_path, rows=rows))
    texts = {row[0][0] for split in actual.dataset.splits.values() for row in split}
    assert texts == {text for text, _ in rows}


def test_a_length_that_gives_no_buckets_is_named(tmp_path):
    with pytest.raises(ValueError, match="data.length is 60"):
        opened(tmp_path, origin="embedded", length=60)


def test_a_folder_beside_a_variant_that_reads_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="would not be read: data.origin is 'embedded'"):
        opened(tmp_path, origin="embedded", dir="/nowhere")


def test_rows_that_are_left_out_are_said(tmp_path):
    lines = [f"word {i % 7}\t{i % 2}" for i in range(60)]
    folder = write(tmp_path / "f", train="sentence\tlabel\n" + "\n".join(lines) + "\n")
    few = opened(tmp_path, dir=folder, rows=40)
    assert few.describe()["notes"] == ["Only the first 40 of the 60 train rows are used"]
    assert not opened(tmp_path, dir=folder).describe()["notes"]
