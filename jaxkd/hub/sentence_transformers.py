"""Folders of sentence-transformers: where the model is, and how its states become one vector.

`Config.pooling` names it: "mean", "cls", ... as the library does, "+" between several, with
"+normalise" at the end where the vectors have length 1. Empty: the folder says nothing.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

MODULES = "modules.json"
NORMALISE = "normalise"
_MODES = {  # name -> key of 1_Pooling/config.json
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_TYPE = "sentence_transformers.models."


def transformer_folder(folder: pathlib.Path) -> pathlib.Path:
    """The folder of config.json and weights: `folder` itself, or the one that modules.json names.

    Raises:
      ValueError: if modules.json is damaged or names a folder elsewhere.
    """
    for module in _modules(folder):
        if _kind(module) == "Transformer":
            return folder / module["path"]
    return folder


def read_pooling(folder: pathlib.Path, warn: Callable[[str], Any]) -> str:
    """How a folder's last hidden states become one vector; `warn` gets a sentence about it.

    Raises:
      ValueError: as `transformer_folder`, and for a pooling that names no mode.
    """
    modes, others = [], []
    for module in _modules(folder):
        if _kind(module) == "Pooling":
            file = folder / module["path"] / "config.json"
            stored = _json(file)
            named = stored.get("pooling_mode")
            named = [named] if isinstance(named, str) else named
            modes += named or [mode for mode, key in _MODES.items() if stored.get(key)]
            unknown = [mode for mode in modes if mode not in _MODES]
            if not modes or unknown:
                raise ValueError(
                    f"{file}: the pooling is {unknown or 'not named'}; known are "
                    f"{', '.join(_MODES)}."
                )
        elif _kind(module) == "Normalize":
            modes.append(NORMALISE)
        elif _kind(module) != "Transformer":
            others.append(_kind(module))
    pooling = "+".join(modes)
    if pooling:
        message = f"{folder} is a sentence-transformers folder; its pooling is {pooling}"
        left_out = f" ({', '.join(others)} is not read: its vectors differ)" if others else ""
        warn(f"{message} of the last hidden states, which the model does not apply{left_out}")
    return pooling


def write_pooling(folder: pathlib.Path, pooling: str, width: int, max_length: int) -> None:
    """Write what makes a bare encoder's folder one of sentence-transformers; "" writes nothing."""
    if not pooling:
        return
    modes = pooling.split("+")
    modules = [_module(0, "", "Transformer"), _module(1, "1_Pooling", "Pooling")]
    if NORMALISE in modes:
        modules.append(_module(2, "2_Normalize", "Normalize"))
    settings = {"word_embedding_dimension": width}
    settings |= {key: mode in modes for mode, key in _MODES.items()}
    length = {"max_seq_length": max_length, "do_lower_case": False}
    files = {
        MODULES: modules,
        "1_Pooling/config.json": settings,
        "sentence_bert_config.json": length,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def _module(number: int, path: str, kind: str) -> dict[str, Any]:
    return {"idx": number, "name": str(number), "path": path, "type": f"{_TYPE}{kind}"}


def _kind(module: dict[str, Any]) -> str:
    return module["type"].rsplit(".", 1)[-1]


def _modules(folder: pathlib.Path) -> list[dict[str, Any]]:
    file = folder / MODULES
    if not file.is_file():
        return []
    modules = _json(file)
    if not isinstance(modules, list) or not all(
        isinstance(m, dict) and isinstance(m.get("type"), str) and isinstance(m.get("path"), str)
        for m in modules
    ):
        raise ValueError(f"{file} is no list of modules, each with a type and a path.")
    for module in modules:
        path = module["path"]
        if path == ".." or (path and pathlib.PurePath(path).name != path):
            raise ValueError(f"{file} names the folder {path!r}; allowed are folders within it.")
    return modules


def _json(file: pathlib.Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as JSON: {error}. Download it again.") from error
