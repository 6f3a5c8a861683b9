"""Tensors by name out of a checkpoint's files, read one at a time and never unpickled."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import safe_open

WHOLE, INDEX, TORCH = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
FILES = ("config.json", WHOLE, INDEX, "model-*.safetensors")


# safetensors' names of dtypes; the library gives copies, and here views are wanted
DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


class Tensors(Mapping[str, np.ndarray]):
    """Looks like a dict of arrays; each is a read-only view of its file, mapped into memory."""

    def __init__(self, files: Mapping[str, pathlib.Path]):
        self._files = files  # tensor -> file
        self._headers: dict[pathlib.Path, tuple[int, dict[str, Any]]] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        file = self._files[name]
        if file not in self._headers:
            self._headers[file] = _header(file)
        start, header = self._headers[file]
        told = header[name]
        if told["dtype"] not in DTYPES:
            raise ValueError(
                f"{file}: {name} is of type {told['dtype']}, which is not implemented; supported: "
                f"{', '.join(DTYPES)}."
            )
        shape, offset = tuple(told["shape"]), start + told["data_offsets"][0]
        if 0 in shape:
            return np.zeros(shape, DTYPES[told["dtype"]])
        return np.memmap(file, DTYPES[told["dtype"]], "r", offset, shape or (1,)).reshape(shape)

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


def _header(file: pathlib.Path) -> tuple[int, dict[str, Any]]:
    """Where the data begin, and type, shape and place of each tensor.

    The format is 8 bytes of length, little-endian, a JSON object of that length, then the data.
    """
    _names(file)  # the library checks all of it
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return 8 + length, json.loads(stream.read(length))


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
