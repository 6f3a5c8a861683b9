"""Text to token ids: a given vocabulary, or one trained on the corpus where there is none."""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxkd.data.tokenizers.layout import LAYOUTS, with_layout
from jaxkd.data.tokenizers.open_folder import (
    hub_folder,
    local_folder,
    open_folder,
    wordpiece_from_vocabulary,
)
from jaxkd.data.tokenizers.saving import save_tokenizer
from jaxkd.data.tokenizers.subwords import train_subwords
from jaxkd.data.tokenizers.trimming import trim_wordpiece, used_tokens
from jaxkd.data.tokenizers.wordpiece import SPECIAL, UNKNOWN_WORD, train_vocabulary


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A tokenizer of transformers, and where it comes from.

    The truncation and padding that a tokenizer's file may ask for never act here.
    """

    fast: Any  # transformers.PreTrainedTokenizerBase
    origin: str  # "folder ..", "hub .." or "trained .. (why the others could not be had)"
    trained: bool  # True: its losses are in nats of another vocabulary
    fingerprint: str  # of its vocabulary and its rules

    @functools.cached_property
    def vocab_size(self) -> int:
        """The largest id and one, which an embedding needs: more than tokens if ids have holes."""
        return max(self.fast.get_vocab().values()) + 1

    @property
    def pad(self) -> int:
        return self._first("pad", "eos", "sep")

    @property
    def cls(self) -> int:
        """What a row begins with: a decoder's beginning of text, or its end, if that is all."""
        return self._first("cls", "bos", "eos")

    @property
    def sep(self) -> int:
        return self._first("sep", "eos")

    @property
    def mask(self) -> int:
        """[MASK]; where there is none, padding, which nothing masks with."""
        return self._first("mask", "pad", "eos")

    @property
    def unk(self) -> int | None:
        """The id of unknown words; None where every text can be spelt."""
        unknown = self.fast.unk_token_id
        return None if unknown in (self.cls, self.sep) else unknown

    @functools.cached_property
    def prefix(self) -> tuple[int, ...]:
        """Ids that transformers puts before a text: [CLS], <s> or none."""
        words = (i for i in self.fast.get_vocab().values() if i not in self.special_ids)
        for text in itertools.chain("a", map(self.fast.decode, ([i] for i in words))):
            plain = self.fast(text, add_special_tokens=False)["input_ids"]
            if not plain:  # a vocabulary without this letter
                continue
            whole = self.fast(text)["input_ids"]
            at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
            return tuple(whole[:at])
        return ()

    def _first(self, *names: str) -> int:
        ids = (getattr(self.fast, f"{name}_token_id") for name in names)
        return next(number for number in ids if number is not None)

    @property
    def special_ids(self) -> frozenset[int]:
        """[PAD], [UNK], [CLS], [SEP], [MASK] and whatever else the tokenizer calls special."""
        return frozenset(self.fast.all_special_ids)

    @property
    def structural_ids(self) -> frozenset[int]:
        """Special ids but that of unknown words, which are words of a text like any other."""
        return self.special_ids - {self.unk}

    @functools.cached_property
    def _backend(self) -> Any:
        """A copy of the Rust tokenizer that transformers' calls cannot change; None without one."""
        return plain_backend(self.fast)

    def encode(self, texts: Sequence[str]) -> list[Int[np.ndarray, " n"]]:
        """int32 ids of each text, nothing added before or after, nothing cut off.

        WikiText's `<unk>` becomes the one id of [UNK]; without one it is spelt.
        """
        ids = []
        for start in range(0, len(texts), 64):
            known = [
                text if self.unk is None else text.replace(UNKNOWN_WORD, self.fast.unk_token)
                for text in texts[start : start + 64]
            ]
            if self._backend is None:
                ids += [
                    np.array(row, np.int32)
                    for row in self.fast(known, add_special_tokens=False)["input_ids"]
                ]
            else:
                encoded = self._backend.encode_batch_fast(known, add_special_tokens=False)
                ids += [np.array(row.ids, np.int32) for row in encoded]
        return ids

    def encode_pairs(
        self, first: Sequence[str], second: Sequence[str] | None = None, *, max_length: int
    ) -> list[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]]:
        """int32 ids and segments of each text or pair of texts, special tokens added.

        They are what transformers' own call gives: `fast(first, second,
        truncation="longest_first", max_length=max_length)`. Segments are 0 where it gives none.

        Args:
          max_length: tokens of a row at most, special ones included.
        Raises:
          ValueError: if there are not as many second texts as first ones, or max_length has no
            room beside the special tokens.
        """
        if second is not None and len(first) != len(second):
            raise ValueError(f"{len(first)} first texts and {len(second)} second ones: no pairs.")
        added = self.fast.num_special_tokens_to_add(pair=second is not None)
        if max_length <= added:
            raise ValueError(
                f"max_length is {max_length}, and {added} special tokens are added to each row: "
                f"at least {added + 1} is needed."
            )
        if not len(first):
            return []
        encoded = self.fast(
            list(first),
            None if second is None else list(second),
            truncation="longest_first",
            max_length=max_length,
        )
        ids = [np.array(row, np.int32) for row in encoded["input_ids"]]
        if "token_type_ids" not in encoded:
            return [(row, np.zeros_like(row)) for row in ids]
        segments = [np.array(row, np.int32) for row in encoded["token_type_ids"]]
        return list(zip(ids, segments, strict=True))

    def decode(self, ids: Sequence[int] | Int[np.ndarray, " n"]) -> str:
        """The text these ids spell, special tokens left out."""
        return self.fast.decode(ids, skip_special_tokens=True).strip()

    def normalise(self, text: str) -> str:
        """The text as this tokenizer writes it: a reference that decoded texts can equal.

        A WordPiece tokenizer writes "a man, take it." for "A man , take it .".
        """
        return self.decode(self.encode([text])[0])

    def trimmed(
        self, counts: Int[np.ndarray, " V"]
    ) -> tuple["Tokenizer", Int[np.ndarray, " kept"]]:
        """The tokens that were counted, with those that must stay; and each one's id before.

        Texts of counted tokens are cut into the same tokens; see `trim_wordpiece`.
        """
        import tokenizers
        import transformers

        names = self.fast.convert_ids_to_tokens(range(self.vocab_size))
        kept = used_tokens(counts, sorted(self.special_ids), names)
        rules = trim_wordpiece(self.fast.backend_tokenizer.to_str(), kept)
        special = {name: getattr(self.fast, name) for name in SPECIAL}
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer.from_str(rules),
            model_max_length=self.fast.model_max_length,
            model_input_names=self.fast.model_input_names,
            **special,
        )
        origin = f"{self.origin}, {len(kept)} of its {self.vocab_size} tokens"
        return Tokenizer(fast, origin, self.trained, _fingerprint(fast)), kept

    def save(self, folder: str | os.PathLike) -> None:
        """Write what `transformers.AutoTokenizer.from_pretrained(folder)` opens."""
        save_tokenizer(self.fast, pathlib.Path(folder))


def open_tokenizer(
    name_or_dir: str = "bert-base-uncased",
    *,
    texts: Callable[[], Iterable[str]],
    fingerprint: str,
    cache: pathlib.Path,
    trained_size: int = 8192,
    masked: bool = True,
    lossless: bool = False,
    layout: str = "",
) -> Tokenizer:
    """The first that can be had of: a folder, the hub's, one trained on `texts()`.

    Args:
      name_or_dir: a folder with vocab.txt, vocab.json, tokenizer.json or a SentencePiece model; a
        hub id, looked for in `$JAXKD_DATA/tokenizers/<id>`, the local hub cache and the hub; or
        "trained".
      texts, fingerprint: the training split, read only if a vocabulary must be trained, and what
        identifies it.
      cache: a trained vocabulary is kept under `cache / "tokenizers"`.
      trained_size: entries of a trained vocabulary, at most.
      masked: refuse a tokenizer without [MASK] and the other special tokens of masked language
        models; else one that has an end of text is enough.
      lossless: where a vocabulary must be trained, one from which the text is decoded as it was
        (subwords.py), instead of a lower-case WordPiece one.
      layout: what a trained tokenizer adds to texts (layout.py); empty: "pair" if masked, else
        "source" if lossless, else "prompt".
    Raises:
      FileNotFoundError: a folder without a vocabulary, or a path where nothing is.
      ValueError: the hub was asked and knows no such tokenizer; its files cannot be read; special
        tokens are missing; trained_size is too small.
    """
    layout = layout or ("pair" if masked else "source" if lossless else "prompt")
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}; allowed are {', '.join(LAYOUTS)}.")
    why = "asked for"
    if name_or_dir != "trained":
        folder, origin = local_folder(name_or_dir)
        if folder is None:
            folder, origin = hub_folder(name_or_dir)
        if folder is not None:
            return _tokenizer(open_folder(folder, masked), origin, trained=False, masked=masked)
        why = origin
    origin = f"trained on the corpus ({why})"
    kind = "-subwords" if lossless else ""
    file = cache / "tokenizers" / f"{fingerprint}-{trained_size}{kind}"
    file /= "tokenizer.json" if lossless else "vocab.txt"
    if not file.exists():
        if lossless:
            content = train_subwords(texts(), trained_size, tuple(SPECIAL.values())).to_str()
        else:
            content = "".join(f"{x}\n" for x in train_vocabulary(texts(), trained_size))
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{os.getpid()}.{file.name}")
        unfinished.write_text(content, encoding="utf-8")
        os.replace(unfinished, file)
    fast = open_folder(file.parent, masked) if lossless else wordpiece_from_vocabulary(file)
    return _tokenizer(with_layout(fast, layout), origin, trained=True, masked=masked)


def folder_tokenizer(folder: pathlib.Path) -> Tokenizer:
    """The tokenizer of a model's folder.

    Raises:
      FileNotFoundError: if the folder has no vocabulary.
      ValueError: if its files cannot be read, or name no end of a text.
    """
    local, origin = local_folder(os.fspath(folder))
    if local is None:
        raise FileNotFoundError(f"{folder} is not a folder; needed is one with a tokenizer.")
    return _tokenizer(open_folder(local, False), origin, trained=False, masked=False)


def plain_backend(fast: Any) -> Any:
    """A copy of a tokenizer's Rust backend that neither cuts nor pads; None if it has none."""
    import tokenizers

    if getattr(fast, "backend_tokenizer", None) is None:
        return None
    backend = tokenizers.Tokenizer.from_str(fast.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def _tokenizer(fast: Any, origin: str, *, trained: bool, masked: bool) -> Tokenizer:
    missing = [name for name in SPECIAL if getattr(fast, f"{name}_id") is None]
    if not masked and fast.eos_token_id is None and fast.sep_token_id is None:
        raise ValueError(
            f"the tokenizer ({origin}) has no eos_token to put between texts. Choose another "
            "data.tokenizer, or 'trained'."
        )
    if missing and masked:
        raise ValueError(
            f"the tokenizer ({origin}) has no {' and no '.join(missing)}, which masked language "
            "models need. Choose another data.tokenizer, or 'trained'."
        )
    return Tokenizer(fast, origin, trained, _fingerprint(fast))


def _fingerprint(fast: Any) -> str:
    """16 hexadecimal digits of the vocabulary and the rules."""
    backend = plain_backend(fast)
    if backend is not None:
        return hashlib.sha256(backend.to_str().encode()).hexdigest()[:16]
    digest = hashlib.sha256(json.dumps(sorted(fast.get_vocab().items())).encode())
    for name in ("vocab_file", "spm_files", "source_spm", "target_spm"):
        paths = getattr(fast, name, None) or ()
        for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
            digest.update(pathlib.Path(path).read_bytes())
    return digest.hexdigest()[:16]
