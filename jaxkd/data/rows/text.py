"""Plain text as rows of tokens, masked or read from left to right."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Int

from jaxkd.core.batch import Batch
from jaxkd.core.names import did_you_mean
from jaxkd.core.random import numpy_stream
from jaxkd.data.corpora.wikitext2 import WIKITEXT2
from jaxkd.data.rows.base import Data, Rows
from jaxkd.data.rows.masking import Masking, Vocabulary, mask_rows, unigram_nats
from jaxkd.data.rows.packing import pack
from jaxkd.data.rows.survey import Survey
from jaxkd.data.sources.find import ResolvedDataset, find
from jaxkd.data.sources.find_files import display_path
from jaxkd.data.sources.own_files import (
    HELD_OUT,
    column,
    documents,
    existing,
    names_of,
    table_splits,
)
from jaxkd.data.sources.records import Records, a_text, held_out
from jaxkd.data.tokenizers.tokenizer import Tokenizer

CORPORA = {"wikitext2": WIKITEXT2}
EVALUATION = Masking(smoothing=0.0)  # every token alike, as the unigram line counts them
TEXT_ENDINGS = (".txt", ".text", ".md", ".tokens", ".raw")


class MaskedRows(Rows):
    """Some tokens are hidden, and are the targets."""

    form = "masked_lm"
    head = "masked_lm"
    masks = True

    @property
    def config_overrides(self) -> dict[str, Any]:
        # RoBERTa's positions count from its padding id, which rows are filled up with.
        return super().config_overrides | {"pad": self.tokenizer.pad}

    def draw(
        self, rows: Int[np.ndarray, "B L"], rng: np.random.Generator, masking: Masking | None
    ) -> Batch:
        return mask_rows(rows, masking, self.vocabulary, rng)

    def repeated(self, numbers: Int[np.ndarray, " B"], seed: int, masking: Masking) -> Batch:
        if not masking.fixed:
            raise ValueError(
                "rows are masked anew in every epoch: what a teacher predicts for them cannot be "
                "stored. Set masking.fixed=True in the stage that labels and in those that learn."
            )
        rows = self.splits["train"]
        parts = [
            self.draw(rows[i : i + 1], numpy_stream(seed, "masking of a row", int(i)), masking)
            for i in numbers
        ]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def _repeated(self, seed: int, masking: Masking) -> Any:
        if not masking.fixed:
            return None
        return functools.partial(self.repeated, seed=seed, masking=masking)

    def _evaluation_masking(self) -> Masking:
        return EVALUATION

    def unigram_at_targets(self, split: str, batch_size: int) -> float:
        nats = [
            unigram_nats(batch.targets[batch.target_mask], self.vocabulary.counts)
            for batch in self.batches(split, batch_size)
        ]
        return float(np.concatenate(nats).mean())


class CausalRows(Rows):
    """Every token is a target, predicted from those before it; [CLS], [SEP] and padding are not.

    A decoder's tokenizer may have one token for the beginning, the end and padding: rows are filled
    up with -1, so that what is a token stays one.
    """

    form = "causal_lm"
    head = "causal_lm"

    def draw(
        self, rows: Int[np.ndarray, "B L"], rng: np.random.Generator, masking: Masking | None
    ) -> Batch:
        mask, rows = rows >= 0, np.maximum(rows, 0)
        return Batch(
            tokens=np.ascontiguousarray(rows[:, :-1]),
            mask=mask[:, :-1],
            targets=np.ascontiguousarray(rows[:, 1:]),
            target_mask=mask[:, 1:] & ~self.vocabulary.special[rows[:, 1:]],
        )


@dataclasses.dataclass
class Text(Data):
    """Which text, which tokenizer, how long a row.

    The text is a known corpus, or your own: `train` is a file of text (documents separated by
    empty lines, else a document a line), a table with a column of texts, a folder that a TFDS
    builder prepared, or a hub id.
    """

    corpus: str = "wikitext2"  # one of CORPORA; not read where `train` is set
    dir: str = ""  # its folder; empty: look for one in $JAXKD_DATA, then the hub
    origin: str = "auto"  # or folder, hub, embedded: insist on one
    train: str = ""  # your own file, instead of a known corpus
    validation: str = ""  # empty: a tenth of the training documents is held out, by a hash
    test: str = ""  # empty: there is no test split
    text: str = ""  # column of a table; empty: the only one
    length: int = 128  # tokens a row, [CLS] and [SEP] included

    rows_type: ClassVar[type[Rows]]

    def check(self) -> None:
        super().check()
        if self.length < 3:
            raise ValueError(
                f"data.length is {self.length}; [CLS], one token and [SEP] need at least 3."
            )
        if not self.train and self.corpus not in CORPORA:
            raise ValueError(f"data.corpus={self.corpus!r}. {did_you_mean(self.corpus, CORPORA)}")
        check_own(self)

    def dataset(self, cache: pathlib.Path) -> ResolvedDataset:
        if not self.train:
            return find(CORPORA[self.corpus], self.dir, self.origin, cache)
        if _is_text(self.train):
            train = existing(self.train, "data.train")
            splits = {"train": documents(train)}
            name, origin = train.name, f"file {display_path(train)}"
            for split in ("validation", "test"):
                if getattr(self, split):
                    other = existing(getattr(self, split), f"data.{split}")
                    splits[split] = documents(other)
                    origin += f", {split} {display_path(other)}"
        else:
            files = {"train": self.train, "validation": self.validation, "test": self.test}
            tables, name, origin = table_splits(files)
            expected = names_of(self.text)
            if len(expected) > 1:
                raise ValueError(f"data.text={self.text!r}: a text has one column.")
            columns = header_of(tables["train"])
            named = column(expected[0] if expected else "", columns, (), "data.text")
            splits = {
                split: rows.map(lambda row: a_text(row[named], named), f"text {named}")
                for split, rows in tables.items()
            }
            origin += f" (column {named})"
        notes: tuple[str, ...] = ()
        if "validation" not in splits:
            splits["train"], splits["validation"] = held_out(
                splits["train"], key=lambda text: text, percent=HELD_OUT
            )
            notes = (held_out_note(name, "documents"),)
        return ResolvedDataset(name, origin, False, splits, notes=notes)

    @property
    def masked(self) -> bool:  # type: ignore[override]
        return self.rows_type.masks

    def rows_class(self) -> type[Rows]:
        return self.rows_type

    def tokenizer_texts(self, row: str) -> Sequence[str]:
        return (row,)

    def row_key(self, survey: Survey, tokenizer: Tokenizer) -> list[Any]:
        return [self.length]

    def columns(self, survey: Survey) -> int:
        return self.length

    def encode(
        self, split: str, first: int, block: list[str], tokenizer: Tokenizer, survey: Survey
    ) -> Int[np.ndarray, "rows columns"]:
        return pack(
            tokenizer.encode(block),
            length=self.length,
            cls=tokenizer.cls,
            sep=tokenizer.sep,
            pad=self._pad(tokenizer),
        )

    def _pad(self, tokenizer: Tokenizer) -> int:
        return tokenizer.pad if self.rows_type.masks else -1

    def target_tokens(self, rows: Int[np.ndarray, "B C"], survey: Survey) -> Int[np.ndarray, "..."]:
        return rows

    def make_rows(
        self, survey: Survey, *, vocabulary_counts: Int[np.ndarray, " V"], **fields: Any
    ) -> Rows:
        tokenizer = fields["tokenizer"]
        # WikiText's <unk> is a word of its text, to be predicted like any other.
        structural = sorted(tokenizer.structural_ids)

        def ordinary(counts: Int[np.ndarray, " V"]) -> Int[np.ndarray, " V"]:
            counts = counts.copy()
            counts[structural] = 0
            return counts

        vocabulary = Vocabulary.of(
            ordinary(vocabulary_counts),
            special=structural,
            mask=tokenizer.mask,
            pad=self._pad(tokenizer),
        )
        fields["counts"] = {split: ordinary(each) for split, each in fields["counts"].items()}
        return self.rows_type(vocabulary=vocabulary, **fields)


@dataclasses.dataclass
class MaskedText(Text):
    """Text for masked language models."""

    rows_type: ClassVar[type[Rows]] = MaskedRows


@dataclasses.dataclass
class CausalText(Text):
    """Text for models that read from left to right."""

    rows_type: ClassVar[type[Rows]] = CausalRows


def check_own(data: Any) -> None:
    """Raise ValueError where fields of a known corpus and of one's own files are mixed."""
    if not data.train:
        alone = [name for name in ("validation", "test") if getattr(data, name)]
        if alone:
            raise ValueError(
                f"data.{alone[0]}={getattr(data, alone[0])!r}, and data.train is empty: give both, "
                "or neither to use a known corpus."
            )
    elif data.dir or data.origin != "auto":
        raise ValueError(
            f"data.train={data.train!r} is your own data: data.dir={data.dir!r} and "
            f"data.origin={data.origin!r} are of known corpora and would not be read. Leave them "
            "out."
        )


def held_out_note(name: str, what: str) -> str:
    """What a report says where no validation file was given."""
    return (
        f"{name}: no validation file was given; {HELD_OUT}% of the {what} are held out for "
        "validation, by a hash of their text."
    )


def header_of(records: Records) -> tuple[str, ...]:
    """The columns of a table, by its first row.

    Raises:
      ValueError: if it has no rows.
    """
    for _, row in records.read():
        return tuple(row)
    raise ValueError(f"{', '.join(map(str, records.files))}: there are no rows.")


def _is_text(name: str) -> bool:
    return pathlib.Path(name.removesuffix(".gz")).suffix in TEXT_ENDINGS
