"""Sentences with a label as rows of tokens, fed in batches of like length."""

import dataclasses
import functools
import hashlib
import json
import pathlib

import numpy as np
from jaxtyping import Int

from jaxkd.core.batch import Batch
from jaxkd.data.corpora.glue import LABELS, open_sst2
from jaxkd.data.rows.array_cache import cached_arrays
from jaxkd.data.rows.feed import Evaluation, Recall, Training
from jaxkd.data.rows.masking import Masking, Vocabulary, unigram_nats
from jaxkd.data.rows.text import Rows
from jaxkd.data.tokenizers.tokenizer import open_tokenizer

SHORTEST = 8  # tokens a batch has at least, and what its width is a multiple of


@dataclasses.dataclass(frozen=True)
class LabelledRows(Rows):
    """Rows `[CLS] tokens [SEP]`, padded, with the label behind them; one prediction a row.

    Or several, a column for each: then a row that is not asked one of them has -1 there.
    """

    wanted = "SST-2"
    form = "classification"
    head = "sequence_classification"

    asked: int = 1  # predictions a row, columns of labels
    classes: tuple[str, ...] = ()  # of all columns, as "task:class", where there are several

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classes or LABELS

    def draw(
        self, rows: Int[np.ndarray, "B L"], rng: np.random.Generator, how: Masking | None
    ) -> Batch:
        tokens, labels = rows[:, : -self.asked], rows[:, -self.asked :]
        longest = int((tokens != self.vocabulary.pad).sum(1).max())
        tokens = tokens[:, : bucket_length(longest)]
        mask = tokens != self.vocabulary.pad
        # A row that fills up a batch has no token, and no label either.
        counted = mask.any(1, keepdims=True) & (labels >= 0)
        if self.asked == 1:
            labels, counted = labels[:, 0], counted[:, 0]
        return Batch(
            tokens=np.ascontiguousarray(tokens),
            mask=mask,
            targets=np.where(counted, labels, 0).astype(np.int32),
            target_mask=counted,
        )

    def training(
        self, *, seed: int, batch_size: int, masking: Masking, recall: Recall | None = None
    ) -> Training:
        rows = self.splits["train"]
        lengths = (rows[:, : -self.asked] != self.vocabulary.pad).sum(1)
        draw = functools.partial(self.draw, how=masking)
        return Training(
            rows, draw, seed=seed, batch_size=batch_size, lengths=lengths, recall=recall
        )

    def batches(self, split: str, batch_size: int, rows: int = 0) -> Evaluation:
        """By length, shortest first: the order does not matter to a mean."""
        chosen = self.splits[split][: rows or None]
        lengths = (chosen[:, : -self.asked] != self.vocabulary.pad).sum(1)
        draw = functools.partial(self.draw, how=None)
        ordered = chosen[np.argsort(lengths, kind="stable")]
        return Evaluation(ordered, draw, self.vocabulary.pad, batch_size)

    def unigram(self, split: str) -> float:
        """Mean nats a label costs a model that knows the labels' shares in the training split."""
        counts = np.bincount(self.splits["train"][:, -1], minlength=len(LABELS))
        return float(unigram_nats(self.splits[split][:, -1], counts).mean())

    def unigram_at_targets(self, split: str, batch_size: int) -> float:
        return self.unigram(split)

    def describe(self) -> dict[str, object]:
        length = self.splits["train"].shape[1] - self.asked
        return super().describe() | {
            "length": length,
            "classes": len(self.classes) or len(LABELS),
        }


def bucket_length(longest: int) -> int:
    """Tokens of a batch whose longest row has so many: powers of two, and their halves between.

    Each width is compiled once; widths closer together would save little padding.

    >>> [bucket_length(longest) for longest in (5, 9, 17, 25, 33, 49)]
    [8, 16, 24, 32, 48, 64]
    """
    step = max(SHORTEST, (1 << (longest - 1).bit_length()) // 4)
    return -(-longest // step) * step


@dataclasses.dataclass
class Labelled:
    """Which tokenizer, how long a row."""

    dir: str = ""  # folder with train.tsv and dev.tsv; empty: look for one, then the hub
    source: str = "auto"  # or folder, hub, embedded: insist on one
    tokenizer: str = "bert-base-uncased"  # hub id, folder with vocab.txt, or "trained"
    trained_size: int = 8192  # entries of the WordPiece vocabulary, where one must be trained
    length: int = 64  # tokens a row at most, [CLS] and [SEP] included; longer ones are cut
    rows: int = 0  # use only so many rows of each split; 0: all
    trim: bool = False  # keep only the tokens the training split uses; models must be trimmed too

    def open(self, cache: pathlib.Path) -> LabelledRows:
        """Read and tokenise, or take it from the cache; errors as for `sst2.open_sst2`."""
        if self.length < SHORTEST or self.length & (self.length - 1):
            raise ValueError(
                f"data.length is {self.length}; rows are cut at a power of two, {SHORTEST} or more."
            )
        found, examples, content = open_sst2(self.dir or None, source=self.source, cache=cache)
        tokenizer = open_tokenizer(
            self.tokenizer,
            texts=lambda: [sentence for sentence, _ in examples["train"]],
            fingerprint=content,
            cache=cache,
            trained_size=self.trained_size,
        )
        kept = None
        if self.trim:
            used = tokenizer.encode([sentence for sentence, _ in examples["train"]])
            counts = np.bincount(np.concatenate(used), minlength=tokenizer.vocab_size)
            tokenizer, kept = tokenizer.trimmed(counts)
        key = json.dumps(["labelled", content, tokenizer.fingerprint, self.length])
        fingerprint = hashlib.sha256(key.encode()).hexdigest()[:16]
        splits = cached_arrays(
            cache,
            fingerprint,
            lambda: {k: self._rows(v, tokenizer) for k, v in examples.items()},
        )
        structural = sorted(tokenizer.structural_ids)
        counts = np.bincount(splits["train"][:, :-1].ravel(), minlength=tokenizer.vocab_size)
        counts[structural] = 0
        return LabelledRows(
            corpus=found.name,
            origin=found.origin,
            embedded=found.embedded,
            fingerprint=f"{fingerprint}-{self.rows}",
            tokenizer=tokenizer,
            splits={name: rows[: self.rows or None] for name, rows in splits.items()},
            vocabulary=Vocabulary.of(
                counts, special=structural, mask=tokenizer.mask, pad=tokenizer.pad
            ),
            kept=kept,
        )

    def _rows(self, examples, tokenizer) -> Int[np.ndarray, "rows {self.length}+1"]:
        pairs = list(examples)
        rows = np.full((len(pairs), self.length + 1), tokenizer.pad, np.int32)
        for row, ids, (_, label) in zip(
            rows, tokenizer.encode([text for text, _ in pairs]), pairs, strict=True
        ):
            ids = ids[: self.length - 2]
            row[0], row[1 : 1 + len(ids)], row[1 + len(ids)] = tokenizer.cls, ids, tokenizer.sep
            row[-1] = label
        return rows
