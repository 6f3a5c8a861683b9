"""Pairs of texts, a source and its target: known corpora and files of your own."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int

from jaxkd.core.batch import BLANK
from jaxkd.core.names import did_you_mean
from jaxkd.data.corpora.pairs import CORPORA, Pair, parallel
from jaxkd.data.rows.base import Data, Rows
from jaxkd.data.rows.masking import Vocabulary
from jaxkd.data.rows.pair_rows import (
    MULTIPLE,
    NOTHING,
    SHARES,
    CtcRows,
    JoinedRows,
    PairRows,
    choose_widths,
)
from jaxkd.data.rows.survey import Survey
from jaxkd.data.rows.text import check_own, header_of, held_out_note
from jaxkd.data.sources.find import ResolvedDataset, find
from jaxkd.data.sources.find_files import display_path
from jaxkd.data.sources.own_files import HELD_OUT, column, existing, names_of, table_splits
from jaxkd.data.sources.records import a_text, held_out
from jaxkd.data.tokenizers.tokenizer import Tokenizer


@dataclasses.dataclass
class _Pairs(Data):
    """What pairs of a known corpus and of your own files share."""

    tokenizer: str = "trained"  # or a hub id, or a folder: one for both sides
    trained_size: int = 8000  # entries of the vocabulary of subwords, where one must be trained
    corpus: str = "multi30k"  # one of data.corpora.pairs.CORPORA; not read where `train` is set
    dir: str = ""  # its folder; empty: look for one in $JAXKD_DATA, then the hub
    origin: str = "auto"  # or folder, hub, embedded: insist on one
    languages: tuple[str, ...] = (
        "en",
        "de",
    )  # source and target of a known corpus that has several
    train: str = ""  # your own table, or two files of parallel lines: "train.en,train.de"
    validation: str = ""  # the same; empty: a tenth of the training rows is held out, by a hash
    test: str = ""  # the same; empty: the validation rows serve as test split too
    read: int = 64  # tokens of a source at most, special ones included
    write: int = 64  # tokens of a target at most, special ones included
    cut: bool = False  # longer ones lose the rest; else they are an error
    shares: tuple[float, ...] = SHARES  # rows that fit into each width a batch may have
    # For decoders: the words between a source and its target, as " TL;DR:"; empty: for
    # encoder-decoders.
    joined: str = ""
    ctc: bool = False  # for encoders with a CTC head

    masked: ClassVar[bool] = False
    lossless: ClassVar[bool] = True

    def named_columns(self) -> dict[str, str]:
        """The fields that name a table's columns of sources and of targets, and their values."""
        raise NotImplementedError

    def check(self) -> None:
        super().check()
        for name in ("read", "write"):
            if getattr(self, name) < MULTIPLE or getattr(self, name) % MULTIPLE:
                raise ValueError(
                    f"data.{name} is {getattr(self, name)}; needed is a multiple of {MULTIPLE}."
                )
        if not self.shares or list(self.shares) != sorted(self.shares) or self.shares[-1] != 1:
            raise ValueError(
                f"data.shares is {self.shares}: shares that rise to 1, as in {SHARES}, or (1.0,)."
            )
        if self.ctc and (self.joined or self.write > self.read):
            raise ValueError(
                f"data.ctc with joined={self.joined!r}, read={self.read}, write={self.write}: "
                "labels are aligned to positions of the source, so it is not joined and no shorter."
            )
        if not self.train and self.corpus not in CORPORA:
            raise ValueError(f"data.corpus={self.corpus!r}. {did_you_mean(self.corpus, CORPORA)}")
        if len(self.languages) != 2:
            raise ValueError(
                f"data.languages is {self.languages}: a source and a target, as in (en, de)."
            )
        check_own(self)

    def dataset(self, cache: pathlib.Path) -> ResolvedDataset:
        if not self.train:
            corpus = CORPORA[self.corpus]((self.languages[0], self.languages[1]))
            return find(corpus, self.dir, self.origin, cache)
        splits, name, origin = self._parallel() if len(names_of(self.train)) > 1 else self._table()
        notes: tuple[str, ...] = ()
        if "validation" not in splits:
            splits["train"], splits["validation"] = held_out(
                splits["train"], key=lambda pair: pair[0], percent=HELD_OUT
            )
            notes = (held_out_note(name, "pairs"),)
        if "test" not in splits:
            splits["test"] = splits["validation"]
            notes += (f"{name}: no test file was given; the validation rows serve as test split.",)
        return ResolvedDataset(name, origin, False, splits, notes=notes)

    def _parallel(self) -> tuple[dict[str, Any], str, str]:
        splits, names, origin = {}, [], ""
        for split in ("train", "validation", "test"):
            files = names_of(getattr(self, split))
            if not files:
                continue
            if len(files) != 2:
                raise ValueError(
                    f"data.{split}={getattr(self, split)!r}: parallel lines are two files, as in "
                    "\"('train.en','train.de')\"."
                )
            source, target = (existing(file, f"data.{split}") for file in files)
            splits[split] = parallel(source, target)
            names = names or [source.name, target.name]
            origin += f"{', ' * bool(origin)}{split} {display_path(source)}, {display_path(target)}"
        return splits, " and ".join(names), f"files {origin}"

    def _table(self) -> tuple[dict[str, Any], str, str]:
        files = {"train": self.train, "validation": self.validation, "test": self.test}
        tables, name, origin = table_splits(files)
        columns = header_of(tables["train"])
        (first, source), (second, target) = self.named_columns().items()
        for field, value in ((first, source), (second, target)):
            if value:
                column(value, columns, (), f"data.{field}")
        if not source and not target and set(columns) >= {first, second}:
            source, target = first, second  # a table whose columns have the fields' own names
        source = column(source, columns, (target,), f"data.{first}")
        target = column(target, columns, (source,), f"data.{second}")

        def pair(row: Mapping[str, Any]) -> Pair:
            value = row[target]
            several = value if isinstance(value, list) and value else [value]
            return a_text(row[source], source), tuple(a_text(each, target) for each in several)

        splits = {
            split: rows.map(pair, f"pairs {source} {target}") for split, rows in tables.items()
        }
        return splits, name, f"{origin} ({first} {source}; {second} {target})"

    def rows_class(self) -> type[PairRows]:
        return CtcRows if self.ctc else JoinedRows if self.joined else PairRows

    def tokenizer_texts(self, row: Pair) -> Sequence[str]:
        return (row[0], *row[1])

    def row_key(self, survey: Survey, tokenizer: Tokenizer) -> list[Any]:
        return [self.read, self.write, self.cut, self.joined, *tokenizer.prefix]

    def columns(self, survey: Survey) -> int:
        return self.read + self.write

    def encode(
        self, split: str, first: int, block: list[Pair], tokenizer: Tokenizer, survey: Survey
    ) -> Int[np.ndarray, "rows columns"]:
        rows = np.full((len(block), self.columns(survey)), NOTHING, np.int32)
        joined = bool(self.joined)
        # What a row of each side begins and ends with, whatever of it is cut.
        after = tokenizer.encode([self.joined])[0] if joined else [tokenizer.sep]
        before = () if joined or self.ctc else tokenizer.prefix
        sides = {
            "read": (0, tokenizer.prefix, [source for source, _ in block], after),
            # After words of the source; where a tokenizer puts the space itself it is not doubled.
            "write": (self.read, before, [" " * joined + t[0] for _, t in block], [tokenizer.sep]),
        }
        for name, (start, first_ids, texts, last) in sides.items():
            most = getattr(self, name) - len(first_ids) - len(last)
            if most < 1:
                raise ValueError(f"data.joined={self.joined!r} leaves no room: {name}={most}.")
            for number, ids in enumerate(tokenizer.encode(texts)):
                if len(ids) > most and not self.cut:
                    raise ValueError(
                        f"row {first + number + 1} of the {split} split has {len(ids)} tokens and "
                        f"{len(first_ids) + len(last)} that begin and end it; data.{name} is "
                        f"{getattr(self, name)}: {texts[number][:60]!r}. Set config.data.{name} "
                        "higher, or config.data.cut=True to lose the rest."
                    )
                ids = [*first_ids, *ids[:most], *last]
                rows[number, start : start + len(ids)] = ids
        if self.ctc:
            _check_room(split, first, rows[:, : self.read], rows[:, self.read :])
        return rows

    def target_tokens(self, rows: Int[np.ndarray, "B C"], survey: Survey) -> Int[np.ndarray, "..."]:
        return rows[:, self.read :]

    def make_rows(
        self, survey: Survey, *, vocabulary_counts: Int[np.ndarray, " V"], **fields: Any
    ) -> Rows:
        tokenizer = fields["tokenizer"]
        if self.ctc and tokenizer.pad != BLANK:
            raise ValueError(
                f"data.ctc: padding is token {tokenizer.pad} of the tokenizer "
                f"({tokenizer.origin}), and token {BLANK} is the blank of CTC. Choose a tokenizer "
                "that begins with padding, or 'trained'."
            )
        special = sorted(tokenizer.structural_ids - {tokenizer.sep})
        vocabulary = Vocabulary.of(
            vocabulary_counts, special=special, mask=tokenizer.mask, pad=NOTHING
        )
        rows = self.rows_class()(vocabulary=vocabulary, source_columns=self.read, **fields)
        lengths = rows.lengths(fields["splits"]["train"])
        widths = choose_widths(lengths, (self.read, self.write), self.shares)
        fingerprint = f"{rows.fingerprint}-{list(self.shares)}"
        return dataclasses.replace(rows, widths=widths, fingerprint=fingerprint)


@dataclasses.dataclass
class Pairs(_Pairs):
    """Sources and targets: which, under which tokenizer, how long."""

    source: str = ""  # column of a table of your own; empty: "source", or the only one left
    target: str = ""  # the same; empty: "target", or the only one left

    def named_columns(self) -> dict[str, str]:
        return {"source": self.source, "target": self.target}


@dataclasses.dataclass
class Instructions(_Pairs):
    """Prompts and answers for decoders: an answer follows its prompt."""

    prompt: str = ""  # column of a table of your own; empty: "prompt", or the only one left
    answer: str = ""  # the same; empty: "answer", or the only one left
    joined: str = "\n"

    def named_columns(self) -> dict[str, str]:
        return {"prompt": self.prompt, "answer": self.answer}

    def check(self) -> None:
        super().check()
        if not self.joined:
            raise ValueError(
                "data.joined is empty: an answer follows its prompt after some words or a line end."
            )


def _check_room(
    split: str, first: int, sources: Int[np.ndarray, "rows R"], targets: Int[np.ndarray, "rows W"]
) -> None:
    """Raise ValueError for a target that no path over its source's positions spells."""
    positions, labels = (sources >= 0).sum(1), (targets >= 0).sum(1)
    # Between equal labels a position must have none.
    between = ((targets[:, 1:] == targets[:, :-1]) & (targets[:, 1:] >= 0)).sum(1)
    short = np.flatnonzero(positions < labels + between)
    if len(short):
        i = short[0]
        raise ValueError(
            f"row {first + i + 1} of the {split} split has {labels[i]} labels, {between[i]} of "
            f"them equal to the one before, and {positions[i]} positions: data.ctc needs a "
            "position for each label and one between equal ones."
        )
