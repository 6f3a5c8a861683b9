"""WikiText-2 as rows of tokens: tokenised once, cached, fingerprinted; fed masked or shifted."""

import abc
import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Int

from jaxkd.core.batch import Batch
from jaxkd.core.random import numpy_stream
from jaxkd.data.corpora.wikitext2 import Corpus, open_corpus
from jaxkd.data.rows.array_cache import cached_arrays
from jaxkd.data.rows.feed import Evaluation, Recall, Training
from jaxkd.data.rows.masking import Masking, Vocabulary, mask_rows, unigram_nats
from jaxkd.data.rows.packing import pack
from jaxkd.data.tokenizers.tokenizer import Tokenizer, open_tokenizer

SPLITS = ("train", "validation", "test")


EVALUATION = Masking(smoothing=0.0)  # every token alike, as the unigram line counts them


@dataclasses.dataclass
class Text:
    """Which text, which tokenizer, how long a row."""

    dir: str = ""  # folder with wiki.{train,valid,test}.tokens; empty: look for one, then the hub
    source: str = "auto"  # or folder, hub, embedded: insist on one
    tokenizer: str = "bert-base-uncased"  # hub id, folder with vocab.txt, or "trained"
    trained_size: int = 8192  # entries of the WordPiece vocabulary, where one must be trained
    length: int = 128  # tokens a row, [CLS] and [SEP] included
    rows: int = 0  # use only so many rows of each split; 0: all

    def open(self, cache: pathlib.Path) -> "Rows":
        """Read, tokenise and pack, or take it from the cache.

        Raises:
          FileNotFoundError, ValueError: for a folder without the files, an empty or non-UTF-8
            file, an unknown source or tokenizer; each says what to do.
        """
        corpus = open_corpus(self.dir or None, source=self.source, cache=cache)
        tokenizer = open_tokenizer(
            self.tokenizer,
            texts=lambda: corpus.documents("train"),
            fingerprint=corpus.fingerprint,
            cache=cache,
            trained_size=self.trained_size,
            masked=self.opens.head == "masked_lm",
        )
        pad = self.opens.padding(tokenizer)
        told = [corpus.fingerprint, tokenizer.fingerprint, self.length]
        key = json.dumps(told if pad == tokenizer.pad else [*told, pad])
        fingerprint = hashlib.sha256(key.encode()).hexdigest()[:16]
        splits = cached_arrays(
            cache, fingerprint, lambda: _tokenise(corpus, tokenizer, self.length, pad)
        )
        for name, rows in splits.items():
            if len(rows) == 0:
                raise ValueError(f"the {name} split of {corpus.name} ({corpus.origin}) is empty.")
        # WikiText's <unk> is a word of its text, to be predicted like any other.
        structural = sorted(tokenizer.structural_ids)
        words = splits["train"][splits["train"] >= 0]
        counts = np.bincount(words, minlength=tokenizer.vocab_size)
        counts[structural] = 0
        return self.opens(
            corpus=corpus.name,
            origin=corpus.origin,
            embedded=corpus.embedded,
            fingerprint=f"{fingerprint}-{self.rows}",
            tokenizer=tokenizer,
            splits={name: rows[: self.rows or None] for name, rows in splits.items()},
            vocabulary=Vocabulary.of(counts, special=structural, mask=tokenizer.mask, pad=pad),
        )


@dataclasses.dataclass(frozen=True)
class Rows(abc.ABC):
    """The packed splits, and what is to be said of where they come from.

    What a model is to do with a row is `draw`'s business.
    """

    wanted: ClassVar[str] = "WikiText-2"  # the data set it is, unless `embedded`
    # What a row asks of a model: masked_lm, causal_lm, seq2seq, continuation, ctc, classification,
    # regression or multi_task. jaxkd/tasks/ says what that means for heads, terms and metrics.
    form: ClassVar[str]
    head: ClassVar[str]  # the head that predicts what batches ask for
    parts: ClassVar[tuple[str, ...]] = ()  # of several predictions a row, what each is
    ctc: ClassVar[bool] = False  # labels come in order, at places nobody named (CTC)
    top: ClassVar[tuple[int, ...]] = ()  # k for which a target among the k likeliest is counted

    corpus: str
    origin: str
    embedded: bool  # True: the fallback text, not to be called WikiText
    fingerprint: str
    tokenizer: Tokenizer
    splits: dict[str, Int[np.ndarray, "rows L"]]
    vocabulary: Vocabulary
    kept: Int[np.ndarray, " V"] | None = None  # of a trimmed tokenizer: each token's id before

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes of labelled rows, in the order of their numbers."""
        return ()

    @classmethod
    def padding(cls, tokenizer: Tokenizer) -> int:
        """What fills rows up."""
        return tokenizer.pad

    @property
    def fits(self) -> dict[str, int]:
        """Settings of a model made for these rows."""
        return {"vocabulary": self.tokenizer.vocab_size}

    @abc.abstractmethod
    def draw(self, rows: Int[np.ndarray, "B L"], rng: np.random.Generator, how: Masking) -> Batch:
        """A batch of these rows."""

    def training(
        self, *, seed: int, batch_size: int, masking: Masking, recall: Recall | None = None
    ) -> Training:
        """Shuffled batches of the training split without end."""
        return Training(
            self.splits["train"],
            functools.partial(self.draw, how=masking),
            seed=seed,
            batch_size=batch_size,
            repeated=self._repeated(seed, masking),
            recall=recall,
        )

    def repeated(self, numbers: Int[np.ndarray, " B"], seed: int, how: Masking) -> Batch:
        """Rows of the training split by their numbers, as every epoch draws them.

        Raises:
          ValueError: if each epoch draws them anew.
        """
        return self.draw(self.splits["train"][numbers], numpy_stream(seed, "masking", 0), how)

    def _repeated(self, seed: int, how: Masking) -> Any:
        return None

    def batches(self, split: str, batch_size: int, rows: int = 0) -> Evaluation:
        """One pass over a split, or over its first `rows`, the same for every model."""
        draw = functools.partial(self.draw, how=EVALUATION)
        return Evaluation(self.splits[split][: rows or None], draw, self.vocabulary.pad, batch_size)

    def unigram_at_targets(self, split: str, batch_size: int) -> float:
        """What a model that ignores context pays a target, at the very positions evaluated."""
        nats = [
            unigram_nats(batch.targets[batch.target_mask], self.vocabulary.counts)
            for batch in self.batches(split, batch_size)
        ]
        return float(np.concatenate(nats).mean())

    def unigram(self, split: str) -> float:
        """Mean nats a token of a split costs a model that ignores context ([UNK] included)."""
        rows = self.splits[split]
        words = rows[rows >= 0]
        words = words[~self.vocabulary.special[words]]
        return float(unigram_nats(words, self.vocabulary.counts).mean())

    def describe(self) -> dict[str, object]:
        """What reports print of the data."""
        return {
            "corpus": self.corpus,
            "wanted": self.wanted,
            "origin": self.origin,
            "embedded": self.embedded,
            "tokenizer": self.tokenizer.origin,
            "vocabulary": self.tokenizer.vocab_size,
            "rows": {name: len(rows) for name, rows in self.splits.items()},
            "length": self.splits["train"].shape[1],
            "unigram_nats": {name: self.unigram(name) for name in self.splits},
        }


class MaskedRows(Rows):
    """Some tokens are hidden, and asked for."""

    form = "masked_lm"
    head = "masked_lm"

    def draw(self, rows: Int[np.ndarray, "B L"], rng: np.random.Generator, how: Masking) -> Batch:
        return mask_rows(rows, how, self.vocabulary, rng)

    def repeated(self, numbers: Int[np.ndarray, " B"], seed: int, how: Masking) -> Batch:
        if not how.fixed:
            raise ValueError(
                "rows are masked anew in every epoch: what a teacher says of them cannot be "
                "stored. Set masking.fixed=True in the stage that labels and in those that learn."
            )
        rows = self.splits["train"]
        parts = [
            self.draw(rows[i : i + 1], numpy_stream(seed, "masking of a row", int(i)), how)
            for i in numbers
        ]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def _repeated(self, seed: int, how: Masking) -> Any:
        return functools.partial(self.repeated, seed=seed, how=how) if how.fixed else None


class CausalRows(Rows):
    """Every token is asked for, of those before it; [CLS], [SEP] and padding are not.

    A decoder's tokenizer may have one token for the beginning, the end and padding: rows are filled
    up with -1, so that what is a token stays one.
    """

    form = "causal_lm"
    head = "causal_lm"
    top = (5,)

    @classmethod
    def padding(cls, tokenizer: Tokenizer) -> int:
        return -1

    def draw(self, rows: Int[np.ndarray, "B L"], rng: np.random.Generator, how: Masking) -> Batch:
        there, rows = rows >= 0, np.maximum(rows, 0)
        return Batch(
            tokens=rows[:, :-1],
            mask=there[:, :-1],
            targets=rows[:, 1:],
            target_mask=there[:, 1:] & ~self.vocabulary.special[rows[:, 1:]],
        )


@dataclasses.dataclass
class MaskedText(Text):
    """Text for masked language models."""

    opens: ClassVar[type[Rows]] = MaskedRows


@dataclasses.dataclass
class CausalText(Text):
    """Text for models that read from left to right."""

    opens: ClassVar[type[Rows]] = CausalRows


def _tokenise(
    corpus: Corpus, tokenizer: Tokenizer, length: int, pad: int
) -> dict[str, Int[np.ndarray, "rows L"]]:
    return {
        name: pack(
            tokenizer.encode(corpus.documents(name)),
            length=length,
            cls=tokenizer.cls,
            sep=tokenizer.sep,
            pad=pad,
        )
        for name in SPLITS
    }
