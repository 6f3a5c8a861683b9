"""Rows of a source and its target, drawn in batches of like length."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int

from jaxkd.core.batch import BLANK, Batch
from jaxkd.data.corpora.pairs import Pair
from jaxkd.data.rows.base import Rows
from jaxkd.data.rows.masking import Masking

NOTHING = -1  # fills rows up: a model's padding may be a token
MULTIPLE = 8  # tokens, of which the width of a batch is a multiple
SHARES = (0.5, 0.8, 0.95, 1.0)  # of the training split that fit into each width

Width = tuple[int, int]  # tokens of the sources and of the targets in a batch


@dataclasses.dataclass(frozen=True)
class PairRows(Rows):
    """Rows of a source and its target, each with the token that ends it, filled up with -1.

    A model reads the source, and writes the target after the token of the beginning.
    """

    form: ClassVar[str] = "seq2seq"
    head: ClassVar[str] = "seq2seq_lm"

    source_columns: int = 0  # the target has the others
    widths: tuple[Width, ...] = ()  # a batch has the first that holds it
    start: int | None = None  # the decoder's first token; none: the tokenizer's

    @property
    def config_overrides(self) -> dict[str, Any]:
        tokenizer = self.tokenizer
        # Targets that begin with [CLS] or <s> themselves follow the end token, as BART's do.
        start = tokenizer.sep if tokenizer.prefix else tokenizer.cls
        tokens = {"pad": tokenizer.pad, "start": start, "end": tokenizer.sep}
        return super().config_overrides | (tokens if self.head == "seq2seq_lm" else {})

    @property
    def target_beginning(self) -> tuple[int, ...]:
        """Special tokens that a target begins with, which models learn to write."""
        return self.tokenizer.prefix if self.form == "seq2seq" else ()

    def for_model(self, config: Any) -> "PairRows":
        """With the decoder's first token that the model knows: BART's is its end token."""
        if self.form != "seq2seq" or not hasattr(config, "start"):
            return self
        return dataclasses.replace(self, start=config.start)

    def lengths(self, rows: Int[np.ndarray, "B C"]) -> Int[np.ndarray, "B 2"]:
        """Tokens of each source and each target."""
        mask = np.asarray(rows) >= 0
        columns = self.source_columns
        return np.stack([mask[:, :columns].sum(1), mask[:, columns:].sum(1)], 1)

    def draw(
        self, rows: Int[np.ndarray, "B C"], rng: np.random.Generator, masking: Masking | None
    ) -> Batch:
        longest = self.lengths(rows).max(0)
        read, write = next(width for width in self.widths if (longest <= width).all())
        source = rows[:, :read]
        target = rows[:, self.source_columns : self.source_columns + write]
        source_mask, target_mask = source >= 0, target >= 0
        filled = np.where(target_mask, target, self.tokenizer.pad).astype(np.int32)
        start = self.tokenizer.cls if self.start is None else self.start
        first = np.full((len(rows), 1), start, np.int32)
        return Batch(
            tokens=np.where(source_mask, source, self.tokenizer.pad).astype(np.int32),
            mask=source_mask,
            targets=filled,
            target_mask=target_mask,
            decoder_tokens=np.concatenate([first, filled[:, :-1]], axis=1),
            decoder_mask=target_mask,
        )

    def sources(self, rows: Int[np.ndarray, "B C"]) -> Batch:
        """The sources of these rows, and nothing of their targets."""
        rows = np.asarray(rows)
        longest = self.lengths(rows)[:, 0].max()
        read = min(read for read, _ in self.widths if read >= longest)
        mask = rows[:, :read] >= 0
        tokens = np.where(mask, rows[:, :read], self.tokenizer.pad).astype(np.int32)
        return Batch(tokens=tokens, mask=mask)

    def sort_keys(self, rows: Int[np.ndarray, "B C"]) -> Int[np.ndarray, " B"]:
        """By the width a row needs, then by its length."""
        lengths = self.lengths(rows)
        needed = np.stack([(lengths <= width).all(1) for width in self.widths], 1).argmax(1)
        return needed * (rows.shape[1] + 1) + lengths.sum(1)

    def _filler(self) -> int:
        return NOTHING

    @staticmethod
    def texts_of(row: Pair) -> tuple[str, ...]:
        return (row[0], *row[1])

    def references(self, split: str) -> list[tuple[str, ...]]:
        """The texts each row's target is as good as, in the order of the split's rows."""
        every = self.dataset.splits[split]
        count = len(self.splits[split])
        return [tuple(targets) for (_, targets), _ in zip(every, range(count), strict=False)]

    def with_targets(
        self, targets: Int[np.ndarray, "rows T"], sources: Any, origin: str
    ) -> "PairRows":
        """The same with other rows to train on: sources by their numbers, and their new targets.

        Args:
          targets: ids with the ending token, filled up with -1.
          sources: numbers of the training split's rows.
          origin: what the targets are, for the fingerprint.
        """
        rows = np.asarray(self.splits["train"])[np.asarray(sources)]
        wide = np.full((len(rows), rows.shape[1]), NOTHING, np.int32)
        columns = self.source_columns
        wide[:, :columns] = rows[:, :columns]
        wide[:, columns : columns + targets.shape[1]] = targets
        digest = hashlib.sha256(f"{self.fingerprint} {origin}".encode()).hexdigest()[:16]
        return dataclasses.replace(
            self, splits=dict(self.splits) | {"train": wide}, fingerprint=digest
        )

    def describe(self) -> dict[str, Any]:
        targets = self.splits["train"].shape[1] - self.source_columns
        return super().describe() | {
            "length": f"{self.source_columns} of a source, {targets} of a target",
            "widths": [list(width) for width in self.widths],
        }


class CtcRows(PairRows):
    """The same for encoders with a CTC head: labels in order, not aligned to the source."""

    form = "ctc"
    head = "masked_lm"  # one that has logits of all tokens at all positions
    ctc = True

    def draw(
        self, rows: Int[np.ndarray, "B C"], rng: np.random.Generator, masking: Masking | None
    ) -> Batch:
        """Labels have room for as many as there are positions, which are at least as many."""
        apart = super().draw(rows, rng, masking)
        more = ((0, 0), (0, apart.tokens.shape[1] - apart.targets.shape[1]))
        return Batch(
            tokens=apart.tokens,
            mask=apart.mask,
            targets=np.pad(apart.targets, more, constant_values=BLANK),
            target_mask=np.pad(apart.target_mask, more),
        )


class JoinedRows(PairRows):
    """The same for decoders: the target follows its source.

    A source ends with the words between the two, and not with a token.
    """

    form = "continuation"
    head = "causal_lm"

    def draw(
        self, rows: Int[np.ndarray, "B C"], rng: np.random.Generator, masking: Masking | None
    ) -> Batch:
        """Only the target's tokens are to be predicted."""
        apart = super().draw(rows, rng, masking)
        read, written = apart.mask.sum(1, keepdims=True), apart.target_mask.sum(1, keepdims=True)
        write = apart.targets.shape[1]
        tokens = np.pad(apart.tokens, ((0, 0), (0, write)), constant_values=self.tokenizer.pad)
        positions = read + np.arange(write)
        np.put_along_axis(tokens, positions, apart.targets, axis=1)
        return Batch(
            tokens=tokens,
            mask=np.arange(tokens.shape[1]) < read + written,
            targets=apart.targets,
            target_positions=(positions - 1).astype(np.int32),
            target_mask=apart.target_mask,
        )


def choose_widths(
    lengths: Int[np.ndarray, "rows 2"], limits: Width, shares: Sequence[float] = SHARES
) -> tuple[Width, ...]:
    """Widths of batches, each as wide as its share of the rows needs; the last is `limits`.

    Each is compiled once; more of them would save little padding.

    >>> choose_widths(np.array([[3, 4]] * 5 + [[9, 20]] * 5), (16, 24), (0.5, 1.0))
    ((8, 8), (16, 24))
    """
    mean = np.maximum(lengths.mean(0), 1)
    ordered = lengths[np.argsort((lengths / mean).max(1), kind="stable")]
    widths: list[Width] = []
    for share in shares[:-1]:
        part = ordered[: max(1, int(share * len(ordered)))].max(0)
        read, write = (
            min(-(-int(n) // MULTIPLE) * MULTIPLE, m) for n, m in zip(part, limits, strict=True)
        )
        if (read, write) != limits and (not widths or widths[-1] != (read, write)):
            widths.append((read, write))
    return (*widths, limits)
