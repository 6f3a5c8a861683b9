"""Tensors of a checkpoint's files by name, read one at a time and never unpickled."""

import collections
import json
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import safe_open

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TORCH, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
SAFETENSORS = (WHOLE, INDEX, "model-*.safetensors")  # what a download needs
TORCH_FILES = (TORCH, TORCH_INDEX, "pytorch_model-*.bin")
_POINTER = b"version https://git-lfs"

# safetensors' names of dtypes; the library returns copies, and views are needed here
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
    """Behaves as a dict of arrays; each is a read-only view of its file, mapped into memory."""

    def __init__(self, files: Mapping[str, pathlib.Path]):
        self._files = files  # tensor -> file
        self._headers: dict[pathlib.Path, tuple[int, dict[str, Any]]] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        file = self._files[name]
        if file not in self._headers:
            self._headers[file] = _header(file)
        start, header = self._headers[file]
        if name not in header:
            raise ValueError(f"{file} has no tensor {name}, which {INDEX} says is in it.")
        entry = header[name]
        if entry["dtype"] not in DTYPES:
            raise ValueError(
                f"{file}: {name} is of type {entry['dtype']}, which is not implemented; supported: "
                f"{', '.join(DTYPES)}."
            )
        shape, offset = tuple(entry["shape"]), start + entry["data_offsets"][0]
        if 0 in shape:
            return np.zeros(shape, DTYPES[entry["dtype"]])
        return np.memmap(file, DTYPES[entry["dtype"]], "r", offset, shape or (1,)).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


class Renamed(Mapping[str, np.ndarray]):
    """The same tensors, still read one at a time, under other names."""

    def __init__(self, tensors: Mapping[str, np.ndarray], names: Mapping[str, str]):
        self._tensors, self._names = tensors, names  # names: new -> old

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def open_tensors(folder: pathlib.Path) -> Mapping[str, np.ndarray]:
    """The tensors of a folder's safetensors file or of torch's, in one piece or in shards.

    Raises:
      FileNotFoundError: if the folder has none of them, or lacks a shard that its index names.
      ValueError: if a file is damaged, is no checkpoint, or an index names a file elsewhere.
    """
    if (folder / WHOLE).is_file():
        return Tensors(dict.fromkeys(_names(folder / WHOLE), folder / WHOLE))
    if (folder / INDEX).is_file():
        return Tensors(_shards(folder, INDEX))
    if (folder / TORCH).is_file():
        return _torch(folder / TORCH)
    if (folder / TORCH_INDEX).is_file():
        shards: dict[pathlib.Path, list[str]] = collections.defaultdict(list)
        for tensor, file in _shards(folder, TORCH_INDEX).items():
            shards[file].append(tensor)
        tensors: dict[str, np.ndarray] = {}
        for file, names in shards.items():
            stored = _torch(file)
            missing = [name for name in names if name not in stored]
            if missing:
                raise ValueError(
                    f"{file} has no tensor {missing[0]}, which {TORCH_INDEX} says is in it."
                )
            tensors |= {name: stored[name] for name in names}
        return tensors
    raise FileNotFoundError(
        f"{folder} has no {WHOLE}, no {INDEX}, no {TORCH} and no {TORCH_INDEX}; a model folder "
        "has one of them, as save_pretrained writes it."
    )


def read_json(file: pathlib.Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      ValueError: names the file if it is no JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}. Download or save it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}; needed is a JSON object.")
    return content


def _shards(folder: pathlib.Path, index: str) -> dict[str, pathlib.Path]:
    """Tensor -> file, for the shards that an index names."""
    shards = read_json(folder / index).get("weight_map")
    if not isinstance(shards, dict):
        raise ValueError(f"{folder / index} has no weight_map, which names each tensor's file.")
    for name in set(shards.values()):
        if not isinstance(name, str) or name in (".", "..") or pathlib.PurePath(name).name != name:
            raise ValueError(
                f"{folder / index} names the file {name!r}; allowed are files of the same folder, "
                "by their names alone. Do not use a checkpoint that you do not trust."
            )
    missing = sorted({name for name in shards.values() if not (folder / name).is_file()})
    if missing:
        raise FileNotFoundError(
            f"{folder}: {index} names {', '.join(missing)}, which the folder does not have. "
            "Download the folder again."
        )
    return {tensor: folder / name for tensor, name in shards.items()}


def _check_pointer(file: pathlib.Path) -> None:
    with open(file, "rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise ValueError(
                f"{file} is a git-lfs pointer, not the checkpoint itself. Run `git lfs pull` in "
                "its repository, or download the file from the hub."
            )


def _header(file: pathlib.Path) -> tuple[int, dict[str, Any]]:
    """The offset of the data, and type, shape and position of each tensor.

    The format is 8 bytes of length, little-endian, a JSON object of that length, then the data.
    """
    _names(file)  # the library checks all of it
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return 8 + length, json.loads(stream.read(length))


def _names(file: pathlib.Path) -> list[str]:
    _check_pointer(file)
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
    _check_pointer(file)
    mapped = zipfile.is_zipfile(file)  # torch before 1.6 wrote no zip files, which cannot be mapped
    try:
        # weights_only: a pickle that holds more than tensors is refused, not run.
        stored = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # pickle's and torch's own kinds
        raise ValueError(
            f"{file} cannot be read as tensors ({type(error).__name__}: {error}). Save it again "
            "with save_pretrained, as safetensors."
        ) from error
    if not isinstance(stored, dict) or not all(map(torch.is_tensor, stored.values())):
        raise ValueError(
            f"{file} holds more than tensors by name, as a training state does. Save the model's "
            "state_dict() alone, or use save_pretrained."
        )
    halves = (torch.bfloat16, torch.float16)
    return {k: (v.float() if v.dtype in halves else v).detach().numpy() for k, v in stored.items()}
