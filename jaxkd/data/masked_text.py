"""WikiText-2 as rows ready for masked language modelling: tokenised once, cached, fingerprinted."""

import dataclasses
import hashlib
import json
import os
import pathlib

import numpy as np
from jaxtyping import Int

from jaxkd.data.masking import Vocabulary, unigram_nats
from jaxkd.data.packing import pack
from jaxkd.data.tokenizer import Tokenizer, open_tokenizer
from jaxkd.data.wikitext2 import open_corpus

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass
class MaskedText:
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
        )
        key = json.dumps([corpus.fingerprint, tokenizer.fingerprint, self.length])
        fingerprint = hashlib.sha256(key.encode()).hexdigest()[:16]
        file = cache / "rows" / f"{fingerprint}.npz"
        if not file.exists():
            _tokenise(corpus, tokenizer, self.length, file)
        with np.load(file) as stored:
            splits = {name: stored[name] for name in SPLITS}
        for name, rows in splits.items():
            if len(rows) == 0:
                raise ValueError(f"the {name} split of {corpus.name} ({corpus.origin}) is empty.")
        # WikiText's <unk> is a word of its text, to be predicted like any other.
        structural = sorted(tokenizer.special_ids - {tokenizer.unk})
        counts = np.bincount(splits["train"].ravel(), minlength=tokenizer.vocab_size)
        counts[structural] = 0
        return Rows(
            corpus=corpus.name,
            origin=corpus.origin,
            embedded=corpus.embedded,
            fingerprint=f"{fingerprint}-{self.rows}",
            tokenizer=tokenizer,
            splits={name: rows[: self.rows or None] for name, rows in splits.items()},
            vocabulary=Vocabulary.of(
                counts, special=structural, mask=tokenizer.mask, pad=tokenizer.pad
            ),
        )


@dataclasses.dataclass(frozen=True)
class Rows:
    """The packed splits, and what is to be said of where they come from."""

    corpus: str
    origin: str
    embedded: bool  # True: the fallback text, not to be called WikiText
    fingerprint: str
    tokenizer: Tokenizer
    splits: dict[str, Int[np.ndarray, "rows L"]]
    vocabulary: Vocabulary

    def unigram(self, split: str) -> float:
        """Mean nats a token of a split costs a model that ignores context ([UNK] included)."""
        rows = self.splits[split]
        words = rows[~self.vocabulary.special[rows]]
        return float(unigram_nats(words, self.vocabulary.counts).mean())

    def describe(self) -> dict[str, object]:
        """What reports print of the data."""
        return {
            "corpus": self.corpus,
            "origin": self.origin,
            "embedded": self.embedded,
            "tokenizer": self.tokenizer.origin,
            "vocabulary": self.tokenizer.vocab_size,
            "rows": {name: len(rows) for name, rows in self.splits.items()},
            "length": self.splits["train"].shape[1],
            "unigram_nats": {name: self.unigram(name) for name in SPLITS},
        }


def _tokenise(corpus, tokenizer: Tokenizer, length: int, file: pathlib.Path) -> None:
    splits = {
        name: pack(
            tokenizer.encode(corpus.documents(name)),
            length=length,
            cls=tokenizer.cls,
            sep=tokenizer.sep,
            pad=tokenizer.pad,
        )
        for name in SPLITS
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.stem}.{os.getpid()}.npz")
    np.savez(unfinished, **splits)
    os.replace(unfinished, file)
