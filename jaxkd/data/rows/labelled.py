"""Texts, or pairs of them, with a label: known corpora and tables of your own."""

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxkd.core.names import did_you_mean
from jaxkd.data.corpora.glue import CORPORA, Row
from jaxkd.data.rows.base import Data, Rows
from jaxkd.data.rows.labelled_rows import SHORTEST, LabelledRows, RegressionRows
from jaxkd.data.rows.masking import Vocabulary
from jaxkd.data.rows.survey import Survey, smallest_hashes, text_hash
from jaxkd.data.rows.text import check_own, header_of, held_out_note
from jaxkd.data.sources.find import ResolvedDataset, find
from jaxkd.data.sources.own_files import HELD_OUT, column, names_of, table_splits
from jaxkd.data.sources.records import Records, a_text
from jaxkd.data.tokenizers.tokenizer import Tokenizer

MOST_CLASSES = 1000
NO_LABEL = -1


@dataclasses.dataclass
class Labelled(Data):
    """Which labelled texts, which tokenizer, how long a row.

    The data are a known corpus, or your own: `train` is a table (CSV, TSV, JSONL, also .gz;
    Parquet), a folder that a TFDS builder prepared, or a hub id.
    """

    corpus: str = "sst2"  # one of GLUE's nine; not read where `train` is set
    dir: str = ""  # its folder; empty: look for one in $JAXKD_DATA, then the hub
    origin: str = "auto"  # or folder, hub, embedded: insist on one
    train: str = ""  # your own table, instead of a known corpus
    validation: str = ""  # empty: a tenth of the training rows is held out, by a hash, by class
    test: str = ""  # empty: there is no test split
    # Percent of each class's training rows that make a split of its own, "calibration", by a hash.
    calibration: int = 0
    text: str = ""  # column of the texts, or two: "premise,hypothesis"; empty: the only one left
    label: str = ""  # column of the labels (words, numbers); empty: "label", or the only one left
    regression: bool = False  # labels are numbers to be predicted
    length: int = 64  # tokens a row at most; longer ones are cut
    # Tokens a batch has at least. Every width is compiled by itself: with `length` there is one.
    shortest: int = SHORTEST
    trim: bool = False  # keep only the tokens the training split uses; models must be trimmed too

    def check(self) -> None:
        super().check()
        if self.length < SHORTEST or self.length & (self.length - 1):
            raise ValueError(
                f"data.length is {self.length}; rows are cut at a power of two, {SHORTEST} or more."
            )
        if not SHORTEST <= self.shortest <= self.length:
            raise ValueError(
                f"data.shortest is {self.shortest}; it is at least {SHORTEST}, and at most "
                f"data.length, {self.length}."
            )
        if not 0 <= self.calibration <= 50:
            raise ValueError(
                f"data.calibration is {self.calibration}; it is a percentage from 0 to 50."
            )
        if not self.train and self.corpus not in CORPORA:
            raise ValueError(f"data.corpus={self.corpus!r}. {did_you_mean(self.corpus, CORPORA)}")
        if len(names_of(self.text)) > 2:
            raise ValueError(f"data.text={self.text!r}: a row has one text or two.")
        check_own(self)

    def dataset(self, cache: pathlib.Path) -> ResolvedDataset:
        if not self.train:
            dataset = find(CORPORA[self.corpus], self.dir, self.origin, cache)
        else:
            dataset = self._own()
        if not self.calibration:
            return dataset
        kept, calibration = _stratified(dataset.splits["train"], self.calibration)
        note = (
            f"{dataset.name}: {self.calibration}% of the training rows of each class are held out "
            "for calibration, by a hash of their texts."
        )
        splits = {**dataset.splits, "train": kept, "calibration": calibration}
        return dataclasses.replace(dataset, splits=splits, notes=(*dataset.notes, note))

    def _own(self) -> ResolvedDataset:
        """The rows of a table of one's own."""
        files = {"train": self.train, "validation": self.validation, "test": self.test}
        tables, name, origin = table_splits(files)
        columns = header_of(tables["train"])
        texts, label = self._columns(columns)
        splits = {
            split: rows.map(
                lambda row: (
                    tuple(a_text(row[each], each) for each in texts),
                    self._label(row[label], label),
                ),
                f"labelled {texts} {label} {self.regression}",
            )
            for split, rows in tables.items()
        }
        origin += f" (text {', '.join(texts)}; label {label})"
        notes: tuple[str, ...] = ()
        if "validation" not in splits:
            splits["train"], splits["validation"] = _stratified(splits["train"], HELD_OUT)
            notes = (held_out_note(name, "training rows of each class"),)
        return ResolvedDataset(name, origin, False, splits, notes=notes)

    def _columns(self, columns: Sequence[str]) -> tuple[tuple[str, ...], str]:
        texts = names_of(self.text)
        for each in texts:
            column(each, columns, (), "data.text")
        named = self.label
        if not named and "label" in columns and "label" not in texts:
            named = "label"
        if not named and not texts and len(columns) != 1:
            column("", columns, (), "data.label")
        label = column(named, columns, texts, "data.label")
        return texts or (column("", columns, (label,), "data.text"),), label

    def _label(self, value: Any, name: str) -> str | float:
        if self.regression:
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise ValueError(
                    f"{name} is {value!r}, which is no number (data.regression)."
                ) from None
            if not np.isfinite(number):
                raise ValueError(f"{name} is {value!r}, which is no finite number.")
            return number
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int):
            value = str(value)
        if isinstance(value, float):
            raise ValueError(
                f"{name} is {value!r}: classes are words or integers. Set data.regression=True to "
                "predict the number."
            )
        text = a_text(value, name)
        if text == "-1":
            raise ValueError(f"{name} is -1, which marks rows without a label. Leave them out.")
        return text

    def rows_class(self) -> type[Rows]:
        return RegressionRows if self._is_regression() else LabelledRows

    def _is_regression(self) -> bool:
        return self.regression if self.train else not CORPORA[self.corpus].labels

    def look(self, dataset: ResolvedDataset) -> Any:
        if self._is_regression():
            return None
        known = () if self.train else dataset.labels
        return lambda splits: _classes(splits, known, self.label or "label")

    def tokenizer_texts(self, row: Row) -> Sequence[str]:
        return row[0]

    def trim_tokenizer(
        self, tokenizer: Tokenizer, dataset: ResolvedDataset
    ) -> tuple[Tokenizer, Any]:
        if not self.trim:
            return tokenizer, None
        counts = np.zeros(tokenizer.vocab_size, np.int64)
        texts = (text for row in dataset.splits["train"] for text in row[0])
        while block := list(itertools.islice(texts, 4096)):
            counts += np.bincount(
                np.concatenate(tokenizer.encode(block)), minlength=tokenizer.vocab_size
            )
        return tokenizer.trimmed(counts)

    def row_key(self, survey: Survey, tokenizer: Tokenizer) -> list[Any]:
        return [self.length, list(survey.labels)]

    def _pairs(self) -> bool:
        if self.train:
            return len(names_of(self.text)) == 2
        return CORPORA[self.corpus].texts == 2

    def columns(self, survey: Survey) -> int:
        return self.length + self._pairs() + 1

    def encode(
        self, split: str, first: int, block: list[Row], tokenizer: Tokenizer, survey: Survey
    ) -> Int[np.ndarray, "rows columns"]:
        numbers = {name: number for number, name in enumerate(survey.labels)}
        rows = np.full((len(block), self.columns(survey)), tokenizer.pad, np.int32)
        pairs = self._pairs()
        seconds = [texts[1] for texts, _ in block] if pairs else None
        encoded = tokenizer.encode_pairs(
            [texts[0] for texts, _ in block], seconds, max_length=self.length
        )
        for row, (ids, segments), (_, label) in zip(rows, encoded, block, strict=True):
            row[: len(ids)] = ids
            if pairs:
                second = np.flatnonzero(segments)
                row[-2] = second[0] if len(second) else self.length
            if self._is_regression():
                row[-1] = np.float32(np.nan if label is None else label).view(np.int32)
            else:
                row[-1] = NO_LABEL if label is None else numbers[label]
        return rows

    def target_tokens(self, rows: Int[np.ndarray, "B C"], survey: Survey) -> Int[np.ndarray, "..."]:
        return rows[:, : self.length]

    def make_rows(
        self, survey: Survey, *, vocabulary_counts: Int[np.ndarray, " V"], **fields: Any
    ) -> Rows:
        vocabulary = Vocabulary.of_words(vocabulary_counts, fields["tokenizer"])
        kind = self.rows_class()
        without = [
            split
            for split, rows in fields["splits"].items()
            if kind is LabelledRows
            and (np.asarray(rows[:, -1]) < 0).all()
            or kind is RegressionRows
            and np.isnan(np.ascontiguousarray(rows[:, -1]).view(np.float32)).all()
        ]
        return kind(
            vocabulary=vocabulary,
            classes=survey.labels,
            pairs=self._pairs(),
            shortest=self.shortest,
            unlabelled=tuple(without),
            **fields,
        )


def _classes(
    splits: Mapping[str, Iterator[tuple[str, Any]]], known: Sequence[str], field: str
) -> tuple[str, ...]:
    """The classes: those known, else those of the training split, sorted.

    Raises:
      ValueError: for a label that the training split does not have; for labels that are no classes.
    """
    counts: collections.Counter[str] = collections.Counter()
    for _, (_, label) in splits["train"]:
        counts[label] += 1
    labels = tuple(known) or tuple(sorted(counts, key=_label_order))
    total = sum(counts.values())
    if not total:
        return ()  # survey.py names the split that is empty
    if not known and (len(labels) > MOST_CLASSES or len(labels) > 20 and 2 * len(labels) > total):
        some = ", ".join(repr(name[:30]) for name in labels[:4])
        raise ValueError(
            f"column {field} has {len(labels):,} different labels in {total:,} rows ({some}, ...): "
            "these are no classes. Name the right column, --config.data.label=NAME, or predict "
            "numbers with --config.data.regression=True."
        )
    if not known and len(labels) < 2:
        raise ValueError(
            f"every row of the training split has the label {labels[0]!r}: there is nothing to "
            "tell apart."
        )
    for split, rows in splits.items():
        for where, (_, label) in rows:
            if split != "train" and label is not None and label not in labels:
                raise ValueError(
                    f"{where}: the label {label!r} is not in the training split, which has "
                    f"{', '.join(map(repr, labels[:10]))}{', ...' * (len(labels) > 10)}."
                )
    return labels


def _label_order(name: str) -> tuple[int, int, str]:
    """Integers by their value, then words by the alphabet."""
    return (0, int(name), name) if name.lstrip("-").isdigit() else (1, 0, name)


def _stratified(records: Records, percent: int) -> tuple[Records, Records]:
    """All but some percent of each class's different texts, and those."""
    chosen: set[int] | None = None

    def key(row: Row) -> str:
        return "\n".join(row[0])

    def is_held_out(row: Row) -> bool:
        nonlocal chosen
        if chosen is None:
            numbers: dict[Any, int] = {}

            def texts() -> Iterator[tuple[str, int]]:
                for each in records:
                    label = each[1] if isinstance(each[1], str) else ""  # numbers have no classes
                    yield key(each), numbers.setdefault(label, len(numbers))

            chosen = smallest_hashes(texts(), percent)
        return text_hash(key(row)) in chosen

    how = f"{percent}% of each class by hash"
    return (
        records.keep(lambda row: not is_held_out(row), f"without {how}"),
        records.keep(is_held_out, how),
    )
