"""Write a tokenizer so that transformers 4 and 5 open it and do the same with it."""

import json
import pathlib
from typing import Any

# What transformers 5 calls a tokenizer of no family; transformers 4 does not know the name.
_NEW, _OLD = "TokenizersBackend", "PreTrainedTokenizerFast"


def save_tokenizer(fast: Any, folder: pathlib.Path, *, max_length: int = 0) -> None:
    """Write the files of a transformers tokenizer into a folder.

    Truncation and padding that were set on it are not written. A model's `max_length` (0: leave
    it) becomes model_max_length where the tokenizer has none or a larger one.
    """
    backend = getattr(fast, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    fast.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") == _NEW:
        settings["tokenizer_class"] = _OLD
    if backend is not None:  # transformers 4 sets it to False where the settings do not say
        before = json.loads(backend.to_str()).get("pre_tokenizer") or {}
        if before.get("add_prefix_space") is not None:
            settings["add_prefix_space"] = before["add_prefix_space"]
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, list):  # transformers 4 needs an object there, and reads the old key
        del settings["extra_special_tokens"]
        settings["additional_special_tokens"] = extra
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if max_length:
        limit_length(folder, max_length)


def limit_length(folder: pathlib.Path, max_length: int) -> None:
    """Set a saved tokenizer's model_max_length to a model's, unless it is smaller already."""
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["model_max_length"] = min(settings.get("model_max_length") or max_length, max_length)
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
