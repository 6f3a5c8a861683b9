"""A data set as rows of tokens: how it is opened, and what stages may ask of it."""

import abc
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int

from jaxkd.core.batch import Batch
from jaxkd.core.random import numpy_stream
from jaxkd.data.rows.array_cache import cached_arrays
from jaxkd.data.rows.feed import Evaluation, Recall, Training
from jaxkd.data.rows.masking import Masking, Vocabulary, unigram_nats
from jaxkd.data.rows.survey import Survey, read_survey
from jaxkd.data.sources.find import ResolvedDataset
from jaxkd.data.tokenizers.tokenizer import Tokenizer, open_tokenizer

BLOCK = 512  # rows of a source that are cut into tokens at a time


@dataclasses.dataclass(frozen=True)
class Rows(abc.ABC):
    """The splits as arrays of tokens, and what reports say of where they come from.

    What a model is to do with a row is `draw`'s business.
    """

    # What a row asks of a model: masked_lm, causal_lm, seq2seq, continuation, ctc, classification,
    # regression or multi_task. jaxkd/tasks/ says what that means for heads, terms and metrics.
    form: ClassVar[str]
    head: ClassVar[str]  # the head that predicts what batches ask for
    masks: ClassVar[bool] = False  # whether `masking` decides what a batch shows
    ctc: ClassVar[bool] = False  # labels come in order, without an alignment (CTC)

    dataset: ResolvedDataset
    fingerprint: str
    tokenizer: Tokenizer
    splits: Mapping[str, Int[np.ndarray, "rows C"]]
    vocabulary: Vocabulary
    counts: Mapping[str, Int[np.ndarray, " V"]]  # split -> occurrences of each target token
    kept: Int[np.ndarray, " V"] | None = None  # of a trimmed tokenizer: each token's id before

    @property
    def corpus(self) -> str:
        return self.dataset.name

    @property
    def origin(self) -> str:
        return self.dataset.origin

    @property
    def embedded(self) -> bool:
        """True: the stand-in text, whose numbers are not the data set's."""
        return self.dataset.embedded

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes of labelled rows, in the order of their numbers."""
        return ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts whose predictions are measured apart, where a row has several."""
        return ()

    @property
    def config_overrides(self) -> dict[str, Any]:
        """Fields of a fresh model's config that these rows decide."""
        return {"vocabulary": self.tokenizer.vocab_size}

    @property
    def target_beginning(self) -> tuple[int, ...]:
        """Special tokens that a text to be written begins with."""
        return ()

    def for_model(self, config: Any) -> "Rows":
        """The rows as this model reads them: sequences begin with its own first token."""
        return self

    @abc.abstractmethod
    def draw(
        self, rows: Int[np.ndarray, "B C"], rng: np.random.Generator, masking: Masking | None
    ) -> Batch:
        """A batch of these rows."""

    def training(
        self,
        *,
        seed: int,
        batch_size: int,
        masking: Masking | None = None,
        recall: Recall | None = None,
    ) -> Training:
        """Shuffled batches of the training split without end."""
        rows = self.splits["train"]
        return Training(
            rows,
            functools.partial(self.draw, masking=masking),
            seed=seed,
            batch_size=batch_size,
            lengths=self.sort_keys(rows),
            repeated=self._repeated(seed, masking),
            recall=recall,
        )

    def repeated(
        self, numbers: Int[np.ndarray, " B"], seed: int, masking: Masking | None = None
    ) -> Batch:
        """Rows of the training split by their numbers, as every epoch draws them.

        Raises:
          ValueError: if each epoch draws them anew.
        """
        return self.draw(self.splits["train"][numbers], numpy_stream(seed, "masking", 0), masking)

    def _repeated(self, seed: int, masking: Masking | None) -> Any:
        return None

    def sort_keys(self, rows: Int[np.ndarray, "B C"]) -> Int[np.ndarray, " B"] | None:
        """By what rows are sorted so that a batch's are of like length; None: all are alike."""
        return None

    def order(self, split: str, rows: int = 0) -> Int[np.ndarray, " rows"]:
        """The numbers of a split's rows in the order in which `batches` gives them.

        Args:
          rows: evaluate on that many, evenly spaced over the split; 0: all.
        """
        count = len(self.splits[split])
        chosen = np.arange(count)
        if 0 < rows < count:
            # Evenly spaced: a sorted file would otherwise validate on one class.
            chosen = np.arange(rows) * count // rows
        keys = self.sort_keys(self.splits[split][chosen])
        return chosen if keys is None else chosen[np.argsort(keys, kind="stable")]

    def batches(self, split: str, batch_size: int, rows: int = 0) -> Evaluation:
        """One pass over a split or over `rows` of it, the same for every model."""
        return Evaluation(
            self.splits[split],
            self.order(split, rows),
            functools.partial(self.draw, masking=self._evaluation_masking()),
            self._filler(),
            batch_size,
        )

    def _evaluation_masking(self) -> Masking | None:
        return None

    def _filler(self) -> int:
        """What fills a row up, and a batch that has too few."""
        return self.vocabulary.pad

    def texts(self, split: str, numbers: Iterable[Any]) -> list[tuple[str, ...]]:
        """The texts behind some rows of a split, read from their source again."""
        wanted_rows = set(numbers)
        by_number: dict[int, tuple[str, ...]] = {}
        for number, row in enumerate(self.dataset.splits[split]):
            if number in wanted_rows:
                by_number[number] = self.texts_of(row)
                if len(by_number) == len(wanted_rows):
                    break
        return [by_number[number] for number in numbers]

    @staticmethod
    def texts_of(row: Any) -> tuple[str, ...]:
        """The texts of a source's row."""
        return (row,)

    def unigram(self, split: str) -> float:
        """Mean nats a target token of a split costs a model that knows the training split's
        token frequencies and nothing else."""
        counts = self.counts[split]
        return float(counts @ unigram_nats(np.arange(len(counts)), self.vocabulary.counts)) / max(
            int(counts.sum()), 1
        )

    def unigram_at_targets(self, split: str, batch_size: int) -> float:
        """The same, at the very positions that are evaluated."""
        return self.unigram(split)

    def describe(self) -> dict[str, Any]:
        """What reports print of the data."""
        return {
            "corpus": self.dataset.name,
            "expected_corpus": self.dataset.expected,
            "origin": self.dataset.origin,
            "embedded": self.dataset.embedded,
            "notes": list(self.dataset.notes),
            "tokenizer": self.tokenizer.origin,
            "vocabulary": self.tokenizer.vocab_size,
            "rows": {name: len(rows) for name, rows in self.splits.items()},
            "length": next(iter(self.splits.values())).shape[1],
            "unigram_nats": {name: self.unigram(name) for name in self.splits},
        }


@dataclasses.dataclass
class Data(abc.ABC):
    """What every data set's configuration has: where its tokens come from, and how many rows."""

    tokenizer: str = "bert-base-uncased"  # hub id, folder with vocab.txt, or "trained"
    trained_size: int = 8192  # entries of the vocabulary, where one must be trained
    rows: int = 0  # use only that many rows of each split; 0: all

    masked: ClassVar[bool] = True  # the tokenizer needs [MASK] and the like
    lossless: ClassVar[bool] = False  # a trained vocabulary gives texts back as they were

    def check(self) -> None:
        """Raise ValueError for what is wrong without looking at any file."""
        for name in ("trained_size", "rows"):
            if getattr(self, name) < 0:
                raise ValueError(f"data.{name} is {getattr(self, name)}; it is 0 or more.")

    def open(self, cache: pathlib.Path) -> Rows:
        """Read, cut into tokens, or take it from the cache.

        Raises:
          FileNotFoundError, ValueError: for files that are missing or cannot be read (by file and
            line), an unknown corpus, column or tokenizer; each says what to do.
        """
        self.check()
        dataset = self.dataset(cache)
        survey = read_survey(dataset, cache, self.look(dataset), f"{type(self).__name__} 1")
        dataset = self.resolved(dataset, survey)
        tokenizer = open_tokenizer(
            self.tokenizer,
            texts=lambda: [
                text for row in dataset.splits["train"] for text in self.tokenizer_texts(row)
            ],
            fingerprint=survey.digest,
            cache=cache,
            trained_size=self.trained_size,
            masked=self.masked,
            lossless=self.lossless,
        )
        tokenizer, kept = self.trim_tokenizer(tokenizer, dataset)
        own = self.row_key(survey, tokenizer)
        key = [self.rows_class().form, survey.digest, tokenizer.fingerprint, *own]
        fingerprint = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        arrays = cached_arrays(
            cache,
            fingerprint,
            self.columns(survey),
            lambda: {
                split: self._blocks(split, records, tokenizer, survey)
                for split, records in dataset.splits.items()
            },
        )
        for split, rows in arrays.items():
            if not len(rows):
                raise ValueError(
                    f"the {split} split of {dataset.name} ({dataset.origin}) is empty."
                )
        splits = {name: rows[: self.rows or None] for name, rows in arrays.items()}
        dataset = dataclasses.replace(dataset, notes=(*dataset.notes, *self._cut(arrays)))
        size = tokenizer.vocab_size
        stored = cached_arrays(
            cache,
            f"{fingerprint}-counts",
            size,
            lambda: {
                split: iter([self._count(rows, size, survey)[None]])
                for split, rows in arrays.items()
            },
        )
        counts = {split: np.asarray(each[0], np.int64) for split, each in stored.items()}
        of_rows = counts
        if self.rows:
            of_rows = {split: self._count(rows, size, survey) for split, rows in splits.items()}
        return self.make_rows(
            survey,
            dataset=dataset,
            fingerprint=f"{fingerprint}-{self.rows}",
            tokenizer=tokenizer,
            splits=splits,
            vocabulary_counts=counts["train"],
            counts=of_rows,
            kept=kept,
        )

    def _cut(self, arrays: Mapping[str, Int[np.ndarray, "rows C"]]) -> list[str]:
        """What `rows` leaves out of the splits, for reports."""
        longer = {name: len(rows) for name, rows in arrays.items() if 0 < self.rows < len(rows)}
        of = " and ".join(f"of the {count:,} {name} rows" for name, count in longer.items())
        return [f"Only the first {self.rows:,} {of} are used"] if longer else []

    def _blocks(
        self, split: str, records: Iterable[Any], tokenizer: Tokenizer, survey: Survey
    ) -> Iterator[Int[np.ndarray, "rows columns"]]:
        block: list[Any] = []
        first = 0
        for row in records:
            block.append(row)
            if len(block) == BLOCK:
                yield self.encode(split, first, block, tokenizer, survey)
                first, block = first + BLOCK, []
        if block:
            yield self.encode(split, first, block, tokenizer, survey)

    def _count(
        self, rows: Int[np.ndarray, "B C"], size: int, survey: Survey
    ) -> Int[np.ndarray, " V"]:
        """Occurrences of each target token, a block of rows at a time."""
        counts = np.zeros(size, np.int64)
        for start in range(0, len(rows), 2**16):
            tokens = self.target_tokens(np.asarray(rows[start : start + 2**16]), survey)
            counts += np.bincount(tokens[tokens >= 0], minlength=size)
        return counts

    # What a kind of data fills in.

    @abc.abstractmethod
    def dataset(self, cache: pathlib.Path) -> ResolvedDataset:
        """Where the rows come from."""

    @abc.abstractmethod
    def rows_class(self) -> type[Rows]:
        """What the rows are opened as."""

    def look(self, dataset: ResolvedDataset) -> Any:
        """What is to be learned from reading all rows once (survey.py)."""
        return None

    def resolved(self, dataset: ResolvedDataset, survey: Survey) -> ResolvedDataset:
        """The data set, once its rows were looked at."""
        return dataset

    @abc.abstractmethod
    def tokenizer_texts(self, row: Any) -> Sequence[str]:
        """The texts a vocabulary is trained on."""

    def trim_tokenizer(
        self, tokenizer: Tokenizer, dataset: ResolvedDataset
    ) -> tuple[Tokenizer, Any]:
        """The tokenizer with fewer tokens, and their ids before; None: it keeps all."""
        return tokenizer, None

    @abc.abstractmethod
    def row_key(self, survey: Survey, tokenizer: Tokenizer) -> list[Any]:
        """The settings that decide what `encode` gives."""

    @abc.abstractmethod
    def columns(self, survey: Survey) -> int:
        """Columns of the arrays."""

    @abc.abstractmethod
    def encode(
        self, split: str, first: int, block: list[Any], tokenizer: Tokenizer, survey: Survey
    ) -> Int[np.ndarray, "rows columns"]:
        """Rows of a source, from number `first` on, as rows of tokens."""

    @abc.abstractmethod
    def target_tokens(self, rows: Int[np.ndarray, "B C"], survey: Survey) -> Int[np.ndarray, "..."]:
        """The tokens that `unigram` counts; below 0 where there is none."""

    @abc.abstractmethod
    def make_rows(
        self, survey: Survey, *, vocabulary_counts: Int[np.ndarray, " V"], **fields: Any
    ) -> Rows:
        """The opened rows.

        Args:
          vocabulary_counts: occurrences of each target token in the whole training split, however
            few of its rows are used.
        """
