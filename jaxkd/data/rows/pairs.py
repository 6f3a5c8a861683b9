"""Pairs of texts as rows of tokens, in batches of like length: read and written, or joined."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxkd.core.batch import BLANK, Batch
from jaxkd.data.corpora.pairs import SPLITS, Content, open_pairs
from jaxkd.data.rows.array_cache import cached_arrays
from jaxkd.data.rows.feed import Evaluation, Recall, Training
from jaxkd.data.rows.masking import Masking, Vocabulary, unigram_nats
from jaxkd.data.rows.text import Rows
from jaxkd.data.tokenizers.tokenizer import Tokenizer, open_tokenizer

NOTHING = -1  # fills rows up: a model's padding may be a token
MULTIPLE = 8  # tokens, of which the width of a batch is a multiple
SHARES = (0.5, 0.8, 0.95, 1.0)  # of the training split that fit into each width

Width = tuple[int, int]  # tokens of the sources and of the targets in a batch


@dataclasses.dataclass(frozen=True)
class PairRows(Rows):
    """Rows of a source and its target, each with the token that ends it, filled up with -1.

    A model reads the one, and writes the other after the token of the beginning.
    """

    form = "seq2seq"
    head = "seq2seq_lm"

    title: str = ""  # the data set it is, unless `embedded`
    columns: int = 0  # of the source; the target has the others
    widths: tuple[Width, ...] = ()  # a batch has the first that holds it
    texts: Content | None = None  # split -> the pairs as they were before tokens

    @property
    def wanted(self) -> str:
        return self.title

    @property
    def fits(self) -> dict[str, int]:
        known = self.tokenizer
        written = {"pad": known.pad, "start": known.cls, "end": known.sep}
        return super().fits | (written if self.head == "seq2seq_lm" else {})

    def lengths(self, rows: Int[np.ndarray, "B C"]) -> Int[np.ndarray, "B 2"]:
        """Tokens of each source and each target."""
        there = rows >= 0
        return np.stack([there[:, : self.columns].sum(1), there[:, self.columns :].sum(1)], 1)

    def draw(
        self, rows: Int[np.ndarray, "B C"], rng: np.random.Generator, how: Masking | None
    ) -> Batch:
        longest = self.lengths(rows).max(0)
        read, write = next(width for width in self.widths if (longest <= width).all())
        source, target = rows[:, :read], rows[:, self.columns : self.columns + write]
        shown, asked = source >= 0, target >= 0
        filled = np.where(asked, target, self.tokenizer.pad).astype(np.int32)
        first = np.full((len(rows), 1), self.tokenizer.cls, np.int32)
        return Batch(
            tokens=np.where(shown, source, self.tokenizer.pad).astype(np.int32),
            mask=shown,
            targets=filled,
            target_mask=asked,
            decoder_tokens=np.concatenate([first, filled[:, :-1]], axis=1),
            decoder_mask=asked,
        )

    def sources(self, rows: Int[np.ndarray, "B C"]) -> Batch:
        """What is to be read of these rows, and nothing of what is to be written."""
        longest = self.lengths(rows)[:, 0].max()
        read = min(read for read, _ in self.widths if read >= longest)
        shown = rows[:, :read] >= 0
        return Batch(
            tokens=np.where(shown, rows[:, :read], self.tokenizer.pad).astype(np.int32), mask=shown
        )

    def training(
        self, *, seed: int, batch_size: int, masking: Masking, recall: Recall | None = None
    ) -> Training:
        rows = self.splits["train"]
        draw = functools.partial(self.draw, how=masking)
        return Training(
            rows, draw, seed=seed, batch_size=batch_size, lengths=self._order(rows), recall=recall
        )

    def batches(self, split: str, batch_size: int, rows: int = 0) -> Evaluation:
        """By length, shortest first: the order does not matter to a mean."""
        chosen = self.splits[split][: rows or None]
        ordered = chosen[np.argsort(self._order(chosen), kind="stable")]
        return Evaluation(ordered, functools.partial(self.draw, how=None), NOTHING, batch_size)

    def _order(self, rows: Int[np.ndarray, "B C"]) -> Int[np.ndarray, " B"]:
        """By the width a row needs, then by its length."""
        lengths = self.lengths(rows)
        needed = np.stack([(lengths <= width).all(1) for width in self.widths], 1).argmax(1)
        return needed * (rows.shape[1] + 1) + lengths.sum(1)

    def references(self, split: str) -> list[tuple[str, ...]]:
        """The texts each row's target is as good as, in the order of the split's rows."""
        pairs = self.texts[split]
        return [pairs[i][1] for i in range(len(self.splits[split]))]

    def with_targets(
        self, targets: Int[np.ndarray, "rows T"], sources: Any, told: str
    ) -> "PairRows":
        """The same with other rows to train on: sources by their numbers, and their new targets.

        Args:
          targets: ids with the ending token, filled up with -1.
          sources: numbers of the training split's rows.
          told: what the targets are, for the fingerprint.
        """
        rows = self.splits["train"][np.asarray(sources)]
        wide = np.full((len(rows), rows.shape[1]), NOTHING, np.int32)
        wide[:, : self.columns] = rows[:, : self.columns]
        wide[:, self.columns : self.columns + targets.shape[1]] = targets
        digest = hashlib.sha256(f"{self.fingerprint} {told}".encode()).hexdigest()[:16]
        return dataclasses.replace(self, splits=self.splits | {"train": wide}, fingerprint=digest)

    def unigram(self, split: str) -> float:
        """Mean nats a target's token costs a model that knows the tokens' shares alone."""
        targets = self.splits[split][:, self.columns :]
        return float(unigram_nats(targets[targets >= 0], self.vocabulary.counts).mean())

    def unigram_at_targets(self, split: str, batch_size: int) -> float:
        return self.unigram(split)

    def describe(self) -> dict[str, object]:
        rows = self.splits["train"]
        return super().describe() | {
            "length": f"{self.columns} read, {rows.shape[1] - self.columns} written",
            "widths": [list(width) for width in self.widths],
        }


class CtcRows(PairRows):
    """The same for encoders that name a label or nothing at each place of the source (CTC)."""

    form = "ctc"
    head = "masked_lm"  # one that has logits of all tokens at all places
    ctc = True

    def draw(
        self, rows: Int[np.ndarray, "B C"], rng: np.random.Generator, how: Masking | None
    ) -> Batch:
        """Labels have as much room as there are places, of which they need as many at least."""
        apart = super().draw(rows, rng, how)
        more = ((0, 0), (0, apart.tokens.shape[1] - apart.targets.shape[1]))
        return Batch(
            tokens=apart.tokens,
            mask=apart.mask,
            targets=np.pad(apart.targets, more, constant_values=BLANK),
            target_mask=np.pad(apart.target_mask, more),
        )


class JoinedRows(PairRows):
    """The same for decoders: they read a source, and go on from it with its target.

    A source ends with the words between the two, and not with a token.
    """

    form = "continuation"
    head = "causal_lm"

    def draw(
        self, rows: Int[np.ndarray, "B C"], rng: np.random.Generator, how: Masking | None
    ) -> Batch:
        """Only the target's tokens are to be predicted."""
        apart = super().draw(rows, rng, how)
        read, written = apart.mask.sum(1, keepdims=True), apart.target_mask.sum(1, keepdims=True)
        write = apart.targets.shape[1]
        tokens = np.pad(apart.tokens, ((0, 0), (0, write)), constant_values=self.tokenizer.pad)
        places = read + np.arange(write)
        np.put_along_axis(tokens, places, apart.targets, axis=1)
        return Batch(
            tokens=tokens,
            mask=np.arange(tokens.shape[1]) < read + written,
            targets=apart.targets,
            target_positions=(places - 1).astype(np.int32),
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
    found: list[Width] = []
    for share in shares[:-1]:
        part = ordered[: max(1, int(share * len(ordered)))].max(0)
        read, write = (
            min(-(-int(n) // MULTIPLE) * MULTIPLE, m) for n, m in zip(part, limits, strict=True)
        )
        if (read, write) != limits and (not found or found[-1] != (read, write)):
            found.append((read, write))
    return (*found, limits)


@dataclasses.dataclass
class Pairs:
    """Which pairs, which tokenizer, how long."""

    corpus: str = "multi30k"  # one of data.parallel.CORPORA
    dir: str = ""  # its folder; empty: look for one, then the hub
    source: str = "auto"  # or folder, hub, embedded: insist on one
    languages: tuple[str, ...] = ("en", "de")  # what is read and written (parallel.open_pairs)
    tokenizer: str = "trained"  # or a hub id, or a folder: one for both sides
    trained_size: int = 8000  # entries of the vocabulary of subwords, where one must be trained
    read: int = 64  # tokens of a source at most, the ending one included
    write: int = 64  # tokens of a target at most, the ending one included
    cut: bool = False  # longer ones lose what is too much; else they are an error
    rows: int = 0  # use only so many rows of each split; 0: all
    shares: tuple[float, ...] = SHARES  # rows that fit into each width a batch may have
    # For decoders: the words between a source and its target, as " TL;DR:"; empty: for
    # encoder-decoders.
    joined: str = ""
    ctc: bool = False  # for encoders that name a label or nothing at each place (CTC)

    def open(self, cache: pathlib.Path) -> PairRows:
        """Read and tokenise, or take it from the cache; errors as for `parallel.open_pairs`.

        Raises:
          ValueError: a text longer than `read` or `write`, unless `cut`.
        """
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
                "labels stand at places of the source, so it is not joined and no shorter."
            )
        if len(self.languages) != 2:
            raise ValueError(
                f"data.languages is {self.languages}: one to read and one to write, as in (en, de)."
            )
        title, found, texts, content = open_pairs(
            self.corpus, self.dir or None, source=self.source, languages=self.languages, cache=cache
        )
        tokenizer = open_tokenizer(
            self.tokenizer,
            texts=lambda: _every_text(texts["train"]),
            fingerprint=content,
            cache=cache,
            trained_size=self.trained_size,
            masked=False,
            lossless=True,
        )
        key = [content, tokenizer.fingerprint, self.read, self.write, self.cut]
        key += [self.joined] if self.joined else ["ctc"] if self.ctc else []
        fingerprint = hashlib.sha256(json.dumps(["pairs", *key]).encode()).hexdigest()[:16]
        splits = cached_arrays(
            cache,
            fingerprint,
            lambda: {k: self._rows(k, texts[k], tokenizer) for k in SPLITS},
        )
        targets = splits["train"][:, self.read :]
        counts = np.bincount(targets[targets >= 0], minlength=tokenizer.vocab_size)
        special = sorted(tokenizer.structural_ids - {tokenizer.sep})
        if self.ctc and tokenizer.pad != BLANK:
            raise ValueError(
                f"data.ctc: padding is token {tokenizer.pad} of the tokenizer "
                f"({tokenizer.origin}), and token {BLANK} is what places without a label name. "
                "Choose a tokenizer that begins with padding, or 'trained'."
            )
        form = CtcRows if self.ctc else JoinedRows if self.joined else PairRows
        rows = form(
            corpus=found.name,
            origin=found.origin,
            embedded=found.embedded,
            fingerprint=f"{fingerprint}-{self.rows}-{list(self.shares)}",
            tokenizer=tokenizer,
            splits={name: part[: self.rows or None] for name, part in splits.items()},
            vocabulary=Vocabulary.of(counts, special=special, mask=tokenizer.mask, pad=NOTHING),
            title=title,
            columns=self.read,
            texts=texts,
        )
        if self.ctc:
            for split, part in splits.items():
                _check_room(split, part[:, : self.read], part[:, self.read :])
        lengths = rows.lengths(splits["train"])
        widths = choose_widths(lengths, (self.read, self.write), self.shares)
        return dataclasses.replace(rows, widths=widths)

    def _rows(
        self, split: str, pairs: Sequence[Any], tokenizer: Tokenizer
    ) -> Int[np.ndarray, "rows columns"]:
        rows = np.full((len(pairs), self.read + self.write), NOTHING, np.int32)
        pairs, joined = [pairs[i] for i in range(len(pairs))], bool(self.joined)
        # What a row of each side ends with, whatever of it is cut.
        after = tokenizer.encode([self.joined])[0] if self.joined else [tokenizer.sep]
        sides = {
            "read": (0, [source for source, _ in pairs], after),
            # After words of the source; where a tokenizer puts the space itself it is not doubled.
            "write": (self.read, [" " * joined + told[0] for _, told in pairs], [tokenizer.sep]),
        }
        for name, (start, texts, last) in sides.items():
            most = getattr(self, name) - len(last)
            if most < 1:
                raise ValueError(f"data.joined={self.joined!r} leaves no room: {name}={most}.")
            for number, ids in enumerate(tokenizer.encode(texts)):
                if len(ids) > most and not self.cut:
                    raise ValueError(
                        f"row {number + 1} of the {split} split has {len(ids)} tokens and "
                        f"{len(last)} that end it; data.{name} is {getattr(self, name)}: "
                        f"{texts[number][:60]!r}. Set config.data.{name} higher, or "
                        "config.data.cut=True to lose what is more."
                    )
                ids = [*ids[:most], *last]
                rows[number, start : start + len(ids)] = ids
        return rows


def _check_room(
    split: str, sources: Int[np.ndarray, "rows R"], targets: Int[np.ndarray, "rows W"]
) -> None:
    """Raise ValueError for a target that no path over its source's places spells."""
    places, labels = (sources >= 0).sum(1), (targets >= 0).sum(1)
    # Between equal labels a place must name none.
    between = ((targets[:, 1:] == targets[:, :-1]) & (targets[:, 1:] >= 0)).sum(1)
    short = np.flatnonzero(places < labels + between)
    if len(short):
        i = short[0]
        raise ValueError(
            f"row {i + 1} of the {split} split has {labels[i]} labels, {between[i]} of them equal "
            f"to the one before, and {places[i]} places: data.ctc needs a place for each label and "
            "one between equal ones."
        )


def _every_text(pairs: Sequence[Any]) -> list[str]:
    every = [pairs[i] for i in range(len(pairs))]
    return [source for source, _ in every] + [text for _, texts in every for text in texts]
