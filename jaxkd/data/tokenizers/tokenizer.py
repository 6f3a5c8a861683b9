"""Text to token ids: a given WordPiece vocabulary, or one trained on the corpus where none is."""

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxkd.data.sources.find_files import display_path
from jaxkd.data.sources.hub import hub_files, reason
from jaxkd.data.tokenizers.subwords import train_subwords
from jaxkd.data.tokenizers.trimming import trim_wordpiece, used_tokens

_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_UNKNOWN_WORD = "<unk>"  # how WikiText writes a word outside its vocabulary
_SMALLEST = 256


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A HuggingFace tokenizer and what is to be said of where it comes from."""

    fast: Any  # transformers.PreTrainedTokenizerBase, backed by the Rust library
    origin: str  # "folder ..", "hub .." or "trained .. (why the others could not be had)"
    trained: bool  # True: its losses are in nats of another vocabulary
    fingerprint: str  # of its vocabulary and its rules

    @property
    def vocab_size(self) -> int:
        return len(self.fast)

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

    def _first(self, *names: str) -> int:
        found = (getattr(self.fast, f"{name}_token_id") for name in names)
        return next(number for number in found if number is not None)

    @property
    def special_ids(self) -> frozenset[int]:
        """[PAD], [UNK], [CLS], [SEP], [MASK] and whatever else the tokenizer calls special."""
        return frozenset(self.fast.all_special_ids)

    @property
    def structural_ids(self) -> frozenset[int]:
        """Special ids but that of unknown words, which are words of a text like any other."""
        return self.special_ids - {self.unk}

    def encode(self, texts: Sequence[str]) -> list[Int[np.ndarray, " n"]]:
        """int32 ids of each text, nothing added before or after, nothing cut off.

        WikiText's `<unk>` becomes the one id of [UNK]; without one it is spelt.
        """
        ids = []
        for start in range(0, len(texts), 64):
            known = [
                text if self.unk is None else text.replace(_UNKNOWN_WORD, self.fast.unk_token)
                for text in texts[start : start + 64]
            ]
            encoded = self.fast.backend_tokenizer.encode_batch_fast(known, add_special_tokens=False)
            ids += [np.array(each.ids, np.int32) for each in encoded]
        return ids

    def encode_pairs(self, first, second=None, *, max_length):
        tok = self.fast
        out = tok(
            list(first),
            None if second is None else list(second),
            truncation="longest_first",
            max_length=max_length,
        )
        segs = out.get("token_type_ids") or [[0] * len(i) for i in out["input_ids"]]
        return [
            (np.array(a, np.int32), np.array(b, np.int32)) for a, b in zip(out["input_ids"], segs, strict=True)
        ]

    def decode(self, ids: Sequence[int] | Int[np.ndarray, " n"]) -> str:
        """The text these ids spell, special tokens left out."""
        return self.fast.decode(ids, skip_special_tokens=True).strip()

    def trimmed(
        self, counts: Int[np.ndarray, " V"]
    ) -> tuple["Tokenizer", Int[np.ndarray, " kept"]]:
        """The tokens that were counted, with what else must stay; and each one's id before.

        Texts of counted tokens are cut into the same tokens; see `trim_wordpiece`.
        """
        import tokenizers
        import transformers

        names = self.fast.convert_ids_to_tokens(range(self.vocab_size))
        kept = used_tokens(counts, sorted(self.special_ids), names)
        rules = trim_wordpiece(self.fast.backend_tokenizer.to_str(), kept)
        special = {name: getattr(self.fast, name) for name in _SPECIAL}
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer.from_str(rules), **special
        )
        origin = f"{self.origin}, {len(kept)} of its {self.vocab_size} tokens"
        return _tokenizer(fast, origin, trained=self.trained), kept

    def save(self, folder: str | os.PathLike) -> None:
        """Write what `transformers.AutoTokenizer.from_pretrained(folder)` opens."""
        self.fast.save_pretrained(folder)


def open_tokenizer(
    name_or_dir: str = "bert-base-uncased",
    *,
    texts: Callable[[], Iterable[str]],
    fingerprint: str,
    cache: pathlib.Path,
    trained_size: int = 8192,
    masked: bool = True,
    lossless: bool = False,
) -> Tokenizer:
    """The first that can be had of: a folder, the hub's, one trained on `texts()`.

    Args:
      name_or_dir: a folder with vocab.txt, vocab.json or tokenizer.json; a hub id, looked for in
        `$JAXKD_DATA/tokenizers/<id>`, the local hub cache and the hub; or "trained".
      texts, fingerprint: the training split, read only if a vocabulary must be trained, and what
        identifies it.
      cache: a trained vocabulary is kept under `cache / "tokenizers"`.
      trained_size: entries of a trained vocabulary, at most.
      masked: refuse a tokenizer without [MASK] and the other special tokens of masked language
        models; else one that has an end of text is enough.
      lossless: where a vocabulary must be trained, one that gives the text back as it was
        (subwords.py), instead of a lower-case WordPiece one.
    Raises:
      FileNotFoundError: a folder without a vocabulary, or a path where nothing is.
      ValueError: the hub was asked and knows no such tokenizer; special tokens are missing;
        trained_size is too small.
    """
    why = "asked for"
    if name_or_dir != "trained":
        folder, origin = _folder(name_or_dir)
        if folder is None:
            folder, origin = _hub_folder(name_or_dir)
        if folder is not None:
            return _tokenizer(_open_folder(folder, masked), origin, trained=False, masked=masked)
        why = origin
    told = f"trained on the corpus ({why})"
    if lossless:
        folder = cache / "tokenizers" / f"{fingerprint}-{trained_size}-subwords"
        file = folder / "tokenizer.json"
        if not file.exists():
            found = train_subwords(texts(), trained_size, tuple(_SPECIAL.values()))
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = folder / f".{os.getpid()}.json"
            unfinished.write_text(found.to_str(), encoding="utf-8")
            os.replace(unfinished, file)
        return _tokenizer(_open_folder(folder, masked), told, trained=True, masked=masked)
    file = cache / "tokenizers" / f"{fingerprint}-{trained_size}" / "vocab.txt"
    if not file.exists():
        vocabulary = train_vocabulary(texts(), trained_size)
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".vocab.{os.getpid()}.txt")
        unfinished.write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
        os.replace(unfinished, file)
    return _tokenizer(_from_vocabulary(file), told, trained=True)


def train_vocabulary(texts: Iterable[str], size: int) -> list[str]:
    """A lower-case WordPiece vocabulary; the same texts give the same one, line by line.

    The library breaks ties by ids, which it hands out in the order of a hash table. So the single
    characters are counted and numbered here, and it only merges. The rarest characters are left
    out: at most max(64, size / 16) are kept.
    """
    import tokenizers

    if size < _SMALLEST:
        raise ValueError(f"data.trained_size is {size}; a vocabulary needs at least {_SMALLEST}.")
    trainee = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    trainee.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    trainee.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    texts = [text.replace(_UNKNOWN_WORD, " ") for text in texts]
    words: collections.Counter[str] = collections.Counter()
    for text in texts:
        words.update(trainee.normalizer.normalize_str(text).split())
    characters: collections.Counter[str] = collections.Counter()
    continuing = set()
    for word, count in words.items():
        for piece, _ in trainee.pre_tokenizer.pre_tokenize_str(word):
            characters.update({character: count for character in piece[:1]})
            for character in piece[1:]:
                characters[character] += count
                continuing.add(character)
    ranked = sorted(characters, key=lambda character: (-characters[character], character))
    alphabet = sorted(ranked[: max(64, size // 16)])
    start = [*_SPECIAL.values(), *alphabet, *(f"##{c}" for c in alphabet if c in continuing)]
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=start,  # the only entries whose ids the caller chooses
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    trainee.train_from_iterator(texts, trainer)
    vocabulary = trainee.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _folder(name: str) -> tuple[pathlib.Path | None, str]:
    """A local folder of that name, which must then hold a vocabulary; None: ask the hub."""
    folder = pathlib.Path(name).expanduser()
    if not folder.is_dir():
        if name.startswith((".", "~", os.sep)) or name.count("/") > 1:
            raise FileNotFoundError(
                f"{name} is not a folder. Give data.tokenizer a folder with vocab.txt or "
                "tokenizer.json, a hub id such as bert-base-uncased, or 'trained'."
            )
        if not os.environ.get("JAXKD_DATA"):
            return None, ""
        folder = pathlib.Path(os.environ["JAXKD_DATA"]).expanduser() / "tokenizers" / name
        if not folder.is_dir():
            return None, ""
    present = {path.name for path in folder.iterdir()}
    if not present & {"vocab.txt", "vocab.json", "tokenizer.json"}:
        raise FileNotFoundError(
            f"{folder} holds {', '.join(sorted(present)[:8]) or 'nothing'}; a tokenizer is a "
            "folder with vocab.txt, vocab.json and merges.txt, or tokenizer.json. Put one there, "
            "or give data.tokenizer a hub id or 'trained'."
        )
    return folder, f"folder {display_path(folder)}"


def _hub_folder(name: str) -> tuple[pathlib.Path | None, str]:
    """A folder of the hub's cache; None and why, if the hub cannot be reached."""
    from huggingface_hub import errors

    try:
        alternatives = (["vocab.txt"], ["tokenizer.json", "tokenizer_config.json"])
        return hub_files(name, *alternatives, kind="model")[0].parent, f"hub {name}"
    except Exception as error:
        unknown = (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError)
        if isinstance(error, (*unknown, errors.HFValidationError)):
            raise ValueError(
                f"the hub has no tokenizer {name!r} ({reason(error)}). Give data.tokenizer a "
                "folder with vocab.txt, another hub id, or 'trained'."
            ) from error
        return None, f"{name} could not be had from the hub: {reason(error)}"


def _open_folder(folder: pathlib.Path, masked: bool) -> Any:
    import transformers

    settings = folder / "tokenizer_config.json"
    if not (folder / "tokenizer.json").exists():
        if (folder / "vocab.json").exists():  # GPT-2's own files: bytes, merged
            files = (str(folder / "vocab.json"), str(folder / "merges.txt"))
            return transformers.GPT2Tokenizer(vocab=files[0], merges=files[1])
        return _from_vocabulary(folder / "vocab.txt", settings)
    if settings.exists():
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    file = folder / "tokenizer.json"
    tokens = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    if masked:
        _check(file, tokens)  # what is missing would be appended without a word
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(file), **_SPECIAL)


def _from_vocabulary(file: pathlib.Path, settings: pathlib.Path | None = None) -> Any:
    """BERT's rules on a vocab.txt; lower case if its settings or, without them, its entries are."""
    import transformers

    tokens = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    ordinary = (token for token in tokens if not token.startswith("["))
    lower = all(token == token.lower() for token in ordinary)
    if settings is not None and settings.exists():
        lower = json.loads(settings.read_text(encoding="utf-8")).get("do_lower_case", lower)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    _check(file, vocabulary)
    return transformers.BertTokenizer(vocab=vocabulary, do_lower_case=lower, **_SPECIAL)


def _check(file: pathlib.Path, tokens: Container[str]) -> None:
    missing = [token for token in _SPECIAL.values() if token not in tokens]
    if missing:
        raise ValueError(
            f"{file} lacks {', '.join(missing)}; masked language modelling needs "
            f"{', '.join(_SPECIAL.values())}. Choose another data.tokenizer, or 'trained'."
        )


def _tokenizer(fast: Any, origin: str, *, trained: bool, masked: bool = True) -> Tokenizer:
    missing = [name for name in _SPECIAL if getattr(fast, f"{name}_id") is None]
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
    rules = fast.backend_tokenizer.to_str().encode()
    return Tokenizer(fast, origin, trained, hashlib.sha256(rules).hexdigest()[:16])
