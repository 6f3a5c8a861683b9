"""A folder's or the hub's tokenizer, opened as transformers opens it, or an error that says why."""

import importlib.util
import json
import os
import pathlib
from collections.abc import Container
from typing import Any

from jaxkd.data.sources.find import shown
from jaxkd.data.sources.hub import hub_files, reason
from jaxkd.data.tokenizers.wordpiece import SPECIAL

SENTENCEPIECE = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "source.spm",
)
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", *SENTENCEPIECE)
SETTINGS = "tokenizer_config.json"
# Names of special tokens that tokenizer files without settings use.
_COMMON = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]",),
    "sep_token": ("[SEP]",),
    "mask_token": ("[MASK]", "<mask>"),
    "bos_token": ("<s>", "<|begin_of_text|>", "<|endoftext|>"),
    "eos_token": ("</s>", "<|end_of_text|>", "<|endoftext|>"),
}


def local_folder(name: str) -> tuple[pathlib.Path | None, str]:
    """A local folder of that name, which must then hold a vocabulary; None: it is a hub id."""
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
    if not present & set(VOCABULARIES):
        raise FileNotFoundError(
            f"{folder} holds {', '.join(sorted(present)[:8]) or 'nothing'}; a tokenizer is a "
            "folder with vocab.txt, vocab.json and merges.txt, or tokenizer.json. Put one there, "
            "or give data.tokenizer a hub id or 'trained'."
        )
    return folder, f"folder {shown(folder)}"


def hub_folder(name: str) -> tuple[pathlib.Path | None, str]:
    """A folder of the hub's cache; None and why, if the hub cannot be reached."""
    from huggingface_hub import errors

    try:
        alternatives = (
            ["tokenizer.json", SETTINGS],
            ["vocab.txt", SETTINGS],
            ["vocab.txt"],
            ["vocab.json", "merges.txt", SETTINGS],
            ["source.spm", "target.spm", "vocab.json", SETTINGS],
            *([file, SETTINGS] for file in SENTENCEPIECE[:-1]),
            ["tokenizer.json"],
        )
        return hub_files(name, *alternatives, kind="model")[0].parent, f"hub {name}"
    except Exception as error:
        unknown = (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError)
        if isinstance(error, (*unknown, errors.HFValidationError)):
            raise ValueError(
                f"the hub has no tokenizer {name!r} ({reason(error)}). Give data.tokenizer a "
                "folder with vocab.txt, another hub id, or 'trained'."
            ) from error
        return None, f"{name} could not be had from the hub: {reason(error)}"


def open_folder(folder: pathlib.Path, masked: bool) -> Any:
    """The transformers tokenizer of a folder with one of VOCABULARIES.

    Args:
      masked: refuse a vocabulary without names of its special tokens that lacks BERT's.
    Raises:
      ValueError: names the folder and says why transformers cannot open it.
    """
    present = {path.name for path in folder.iterdir()}
    settings = _json(folder / SETTINGS)
    named = settings.get("tokenizer_class") or _json(folder / "config.json").get("model_type")
    pieces = [file for file in SENTENCEPIECE if file in present]
    if "tokenizer.json" not in present and pieces:
        return _sentencepiece(folder, pieces[0])
    if named and (SETTINGS in present or "tokenizer.json" not in present):
        return _transformers(folder)
    if "tokenizer.json" in present and SETTINGS in present:
        return _transformers(folder)
    if "tokenizer.json" in present:
        return _from_rules(folder / "tokenizer.json", masked)
    if "vocab.json" in present:  # GPT-2's own files: byte pairs
        return _from_merges(folder, settings)
    return wordpiece_from_vocabulary(folder / "vocab.txt", settings)


def wordpiece_from_vocabulary(file: pathlib.Path, settings: Any = None) -> Any:
    """BERT's rules on a vocab.txt, with the settings of a tokenizer_config.json.

    Where they do not say, letters are made lower-case if no entry of the vocabulary has a capital.
    """
    import transformers

    tokens = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    ordinary = (token for token in tokens if not token.startswith("["))
    lower = {"do_lower_case": all(token == token.lower() for token in ordinary)}
    vocabulary = {token: number for number, token in enumerate(tokens)}
    keys = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "model_max_length")
    chosen = {key: settings[key] for key in keys if settings and settings.get(key) is not None}
    special = SPECIAL | _named_tokens(settings or {}, SPECIAL)
    _check(file, vocabulary, special)
    return transformers.BertTokenizer(vocab=vocabulary, **(lower | chosen), **special)


def _named_tokens(settings: dict[str, Any], names: Container[str]) -> dict[str, str]:
    """Special tokens that settings name, as words or as the objects of transformers 4."""
    tokens = {}
    for name, token in settings.items():
        token = token.get("content") if isinstance(token, dict) else token
        if name in names and isinstance(token, str):
            tokens[name] = token
    return tokens


def _from_rules(file: pathlib.Path, masked: bool) -> Any:
    """A tokenizer.json alone: its special tokens are those of common names that it has."""
    import tokenizers
    import transformers

    try:
        vocabulary = tokenizers.Tokenizer.from_file(str(file)).get_vocab()
    except Exception as error:  # the Rust library's own kind
        raise ValueError(f"{file} is no tokenizer: {error}. Save it again.") from error
    if masked:
        _check(file, vocabulary, SPECIAL)  # what is missing would be appended without a word
    special = {}
    for name, words in _COMMON.items():
        known = [word for word in words if word in vocabulary]
        special |= {name: known[0]} if known else {}
    if "sep_token" in special:  # [CLS] and [SEP] are the two ends
        special = {k: v for k, v in special.items() if k not in ("bos_token", "eos_token")}
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(file), **special)


def _from_merges(folder: pathlib.Path, settings: dict[str, Any]) -> Any:
    """GPT-2's rules on vocab.json and merges.txt, and the special tokens it has."""
    import transformers

    files = {"vocab": folder / "vocab.json", "merges": folder / "merges.txt"}
    if not files["merges"].is_file():
        raise ValueError(
            f"{folder} has vocab.json and no merges.txt, so it is no byte-pair vocabulary; a "
            f"SentencePiece one has one of {', '.join(SENTENCEPIECE)} beside it."
        )
    vocabulary = _json(files["vocab"])
    special = _named_tokens(settings, _COMMON)
    for name in ("eos_token", "bos_token", "unk_token", "pad_token"):
        known = [word for word in _COMMON[name] if word in vocabulary]
        special = ({name: known[0]} if known else {}) | special
    if "<|endoftext|>" in vocabulary:
        special = {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"} | special
        special = {"bos_token": "<|endoftext|>"} | special
    elif "eos_token" not in special:
        raise ValueError(
            f"{files['vocab']} has no <|endoftext|> and no </s>, and {SETTINGS} names no "
            "eos_token. Name one there."
        )
    special = {"unk_token": special["eos_token"], "bos_token": special["eos_token"]} | special
    return transformers.GPT2Tokenizer(**{k: str(v) for k, v in files.items()}, **special)


def _sentencepiece(folder: pathlib.Path, file: str) -> Any:
    if importlib.util.find_spec("sentencepiece") is None:
        raise ValueError(
            f"{folder / file} is a SentencePiece vocabulary, which is read by a package that is "
            "not installed: pip install sentencepiece protobuf, or save the tokenizer as "
            "tokenizer.json with transformers."
        )
    return _transformers(folder)


def _transformers(folder: pathlib.Path) -> Any:
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # its own, the Rust library's and SentencePiece's kinds
        raise ValueError(
            f"transformers cannot open the tokenizer in {folder}: {error}. Save it again with "
            "save_pretrained, or download the folder again."
        ) from error


def _json(file: pathlib.Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}. Download or save it again.") from error
    return content if isinstance(content, dict) else {}


def _check(file: pathlib.Path, tokens: Container[str], special: dict[str, str]) -> None:
    missing = [token for token in special.values() if token not in tokens]
    if missing:
        raise ValueError(
            f"{file} lacks {', '.join(missing)}; masked language modelling needs "
            f"{', '.join(special.values())}. Choose another data.tokenizer, or 'trained'."
        )
