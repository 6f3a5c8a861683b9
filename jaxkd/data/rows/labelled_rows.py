"""Rows of labelled texts, drawn in batches of like length."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from jaxkd.core.batch import Batch
from jaxkd.data.corpora.glue import Row
from jaxkd.data.rows.base import Rows
from jaxkd.data.rows.masking import Masking, unigram_nats

SHORTEST = 8  # tokens a batch has at least, and what its width is a multiple of


@dataclasses.dataclass(frozen=True)
class LabelledRows(Rows):
    """Rows as the tokenizer makes them of a text or two, padded, the label in the last column.

    Where there are two texts, the column before the labels says where the second begins. Several
    labels a row (`label_columns`) have a column each; -1 where a row has none.
    """

    form: ClassVar[str] = "classification"
    head: ClassVar[str] = "sequence_classification"

    classes: tuple[str, ...] = ()  # of all columns, as "task:class", where there are several
    label_columns: int = 1
    pairs: bool = False  # two texts a row
    shortest: int = SHORTEST  # tokens a batch has at least
    unlabelled: tuple[str, ...] = ()  # splits without labels

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classes

    @property
    def config_overrides(self) -> dict[str, Any]:
        return super().config_overrides | {"labels": self.labels, "pad": self.tokenizer.pad}

    @property
    def _last(self) -> int:
        """Columns behind the tokens."""
        return self.label_columns + self.pairs

    def draw(
        self, rows: Int[np.ndarray, "B C"], rng: np.random.Generator, masking: Masking | None
    ) -> Batch:
        tokens, labels = rows[:, : -self._last], rows[:, -self.label_columns :]
        longest = int((tokens != self.vocabulary.pad).sum(1).max())
        tokens = tokens[:, : max(bucket_length(longest), self.shortest)]
        mask = tokens != self.vocabulary.pad
        segments = None
        if self.pairs:
            second = rows[:, -self._last : -self.label_columns]
            segments = ((np.arange(tokens.shape[1]) >= second) & mask).astype(np.int32)
        targets, target_mask = self._targets(labels, mask.any(1, keepdims=True))
        return Batch(
            tokens=np.ascontiguousarray(tokens),
            mask=mask,
            targets=targets,
            target_mask=target_mask,
            segments=segments,
        )

    def _targets(
        self, labels: Int[np.ndarray, "B K"], counted: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        # A row that fills up a batch has no token, and no label either.
        mask = counted & (labels >= 0)
        targets = np.where(mask, labels, 0).astype(np.int32)
        return (targets[:, 0], mask[:, 0]) if self.label_columns == 1 else (targets, mask)

    def sort_keys(self, rows: Int[np.ndarray, "B C"]) -> Int[np.ndarray, " B"]:
        """By length; the order does not matter to a mean."""
        return (np.asarray(rows[:, : -self._last]) != self.vocabulary.pad).sum(1)

    @staticmethod
    def texts_of(row: Row) -> tuple[str, ...]:
        return row[0]

    def label_numbers(self, split: str) -> Int[np.ndarray, "rows K"]:
        """The labels of a split's rows; -1 where there is none."""
        return np.asarray(self.splits[split][:, -self.label_columns :])

    def unigram(self, split: str) -> float:
        """Mean nats a label costs a model that knows the labels' shares in the training split."""
        nats = []
        for train, other in zip(
            self.label_numbers("train").T, self.label_numbers(split).T, strict=True
        ):
            size = max(train.max(initial=0), other.max(initial=0)) + 1
            counts = np.bincount(train[train >= 0], minlength=size)
            nats.append(unigram_nats(other[other >= 0], counts))
        every = np.concatenate(nats)
        return float(every.mean()) if len(every) else float("nan")

    def describe(self) -> dict[str, Any]:
        described = super().describe() | {
            "length": self.splits["train"].shape[1] - self._last,
            "classes": len(self.labels),
        }
        described["unigram_nats"] = {
            name: value
            for name, value in described["unigram_nats"].items()
            if name not in self.unlabelled
        }
        if self.label_columns == 1 and self.labels:
            counts = np.bincount(self.label_numbers("train")[:, 0], minlength=len(self.labels))
            most = int(counts.argmax())
            described["labels"] = dict(zip(self.labels, counts.tolist(), strict=True))
            described["most_frequent_class"] = self.labels[most]
            described["share_of_most_frequent_class"] = {
                name: float((self.label_numbers(name) == most).mean())
                for name in self.splits
                if name not in self.unlabelled
            }
        return described


@dataclasses.dataclass(frozen=True)
class RegressionRows(LabelledRows):
    """The same with a number for each row: its float32 bits in the last column."""

    form: ClassVar[str] = "regression"

    @property
    def labels(self) -> tuple[str, ...]:
        return ("score",)

    def scores(self, split: str) -> Float[np.ndarray, " rows"]:
        """The numbers of a split's rows; nan where there is none."""
        return np.ascontiguousarray(self.splits[split][:, -1]).view(np.float32)

    def _targets(
        self, labels: Int[np.ndarray, "B K"], counted: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        scores = np.ascontiguousarray(labels).view(np.float32)[:, 0]
        mask = counted[:, 0] & ~np.isnan(scores)
        return np.where(mask, scores, 0).astype(np.float32), mask

    def unigram(self, split: str) -> float:
        """The mean squared distance from the training split's mean."""
        return float(np.mean((self.scores(split) - self.scores("train").mean()) ** 2))

    def describe(self) -> dict[str, Any]:
        described = super(LabelledRows, self).describe()
        train = self.scores("train")
        return described | {
            "length": self.splits["train"].shape[1] - self._last,
            "unigram_nats": {},
            "scores": {"least": float(train.min()), "largest": float(train.max())},
        }


def bucket_length(longest: int) -> int:
    """Tokens of a batch whose longest row has that many: powers of two, and halves between.

    Each width is compiled once; widths closer together would save little padding.

    >>> [bucket_length(longest) for longest in (5, 9, 17, 25, 33, 49)]
    [8, 16, 24, 32, 48, 64]
    """
    step = max(SHORTEST, (1 << (longest - 1).bit_length()) // 4)
    return -(-longest // step) * step
