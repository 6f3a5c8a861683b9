"""Tensors by name out of a checkpoint's files, read one at a time and never unpickled."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors import safe_open

WHOLE, INDEX, TORCH = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
FILES = ("config.json", WHOLE, INDEX, "model-*.safetensors")


class Tensors(Mapping[str, np.ndarray]):
    """Looks like a dict of arrays; a tensor is read when it is asked for, and not kept."""

    def __init__(self, files: Mapping[str, pathlib.Path]):
        self._files = files  # tensor -> file
        self._open: dict[pathlib.Path, Any] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        file = self._files[name]
        if file not in self._open:
            self._open[file] = safe_open(file, framework="np")
        return self._open[file].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def open_tensors(folder: pathlib.Path) -> Mapping[str, np.ndarray]:
    """The tensors of `model.safetensors`, of its shards, or of `pytorch_model.bin`.

    Raises:
      FileNotFoundError: if the folder has none of them, or lacks a shard its index names.
      ValueError: if a file is damaged.
    """
    if (folder / WHOLE).is_file():
        files = dict.fromkeys(_names(folder / WHOLE), folder / WHOLE)
        return Tensors(files)
    if (folder / INDEX).is_file():
        shards = json.loads((folder / INDEX).read_text())["weight_map"]
        missing = sorted({name for name in shards.values() if not (folder / name).is_file()})
        if missing:
            raise FileNotFoundError(
                f"{folder}: {INDEX} names {', '.join(missing)}, not found there. Download the "
                "folder again."
            )
        return Tensors({tensor: folder / name for tensor, name in shards.items()})
    if (folder / TORCH).is_file():
        return _torch(folder / TORCH)
    raise FileNotFoundError(
        f"{folder} has no {WHOLE}, no {INDEX} and no {TORCH}; a model folder holds one of them, "
        "as save_pretrained writes it."
    )


def _names(file: pathlib.Path) -> list[str]:
    try:
        with safe_open(file, framework="np") as opened:
            return list(opened.keys())
    except Exception as error:  # safetensors raises its own kind
        raise ValueError(f"{file} cannot be read: {error}. Download or save it again.") from error


def _torch(file: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{file} is in torch's format, and torch is not installed: pip install "
            "'jaxkd[export]', or convert the checkpoint to safetensors."
        ) from None
    # weights_only: a pickle that holds more than tensors is refused, not run.
    found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    halves = (torch.bfloat16, torch.float16)
    return {k: (v.float() if v.dtype in halves else v).numpy() for k, v in found.items()}
