"""A teacher's targets on disk: ArrayRecord shards, a record an example, refused where they differ.

A record is a hash of what the model was shown, and the example's arrays one after the other, each
of one shape and type throughout (`Field`). Shards appear whole or not at all.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes  # noqa: F401 (numpy learns of bfloat16)
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import Int, UInt8

from jaxkd.core.batch import Batch

HEADER = "store.json"
HASH = 8  # bytes


@dataclasses.dataclass(frozen=True)
class Field:
    """One array of each example, and how its numbers are written."""

    shape: tuple[int, ...]
    dtype: str  # numpy's name, or "uint24"

    @property
    def size(self) -> int:
        return int(np.prod(self.shape)) * (3 if self.dtype == "uint24" else self._numpy.itemsize)

    @property
    def _numpy(self) -> np.dtype:
        return np.dtype(self.dtype).newbyteorder("<")

    def write(self, array: np.ndarray) -> bytes:
        """Its bytes; raises ValueError for an array of another shape than the others."""
        if array.shape != self.shape:
            raise ValueError(f"an array of shape {array.shape} among those of {self.shape}.")
        if self.dtype != "uint24":
            return np.ascontiguousarray(array.astype(self._numpy)).tobytes()
        return np.ascontiguousarray(_octets(array)[..., :3]).tobytes()

    def read(self, raw: UInt8[np.ndarray, "B bytes"]) -> np.ndarray:
        """[B, ...], ids as int32."""
        if self.dtype == "uint24":
            wide = np.zeros((*raw.shape[:1], raw.shape[1] // 3, 4), np.uint8)
            wide[..., :3] = raw.reshape(*wide.shape[:2], 3)
            values = wide.view("<u4")[..., 0]
        else:
            values = np.ascontiguousarray(raw).view(self._numpy)
        values = values.astype(np.int32) if "uint" in self.dtype else values
        return values.reshape(len(raw), *self.shape)


def _octets(ids: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(ids.astype("<u4"))[..., None].view(np.uint8)


def ids_of(vocabulary: int, *shape: int) -> Field:
    """Token ids in as few bytes as they need."""
    return Field(shape, "uint16" if vocabulary <= 2**16 else "uint24")


def hashes(batch: Batch) -> list[bytes]:
    """Of each row, what a model was shown and which positions were its targets."""
    mask, inputs, targets = np.asarray(batch.mask), [np.asarray(batch.tokens)], []
    if batch.segments is not None:
        inputs.append(np.asarray(batch.segments))
    if batch.target_positions is not None:
        targets = [np.asarray(batch.target_positions), np.asarray(batch.target_mask)]
    digests = []
    for i, present in enumerate(mask):
        # Without the padding behind, which batches of like length cut differently.
        length = int(np.flatnonzero(present)[-1]) + 1 if present.any() else 0
        content = [array[i, :length] for array in inputs] + [array[i] for array in targets]
        content = [part.astype("<i4") for part in content]
        joined = b"".join(part.tobytes() for part in content)
        digests.append(hashlib.blake2b(joined, digest_size=HASH).digest())
    return digests


def shard_file(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"targets-{number:05d}.arrayrecord"


def write_shard(
    folder: pathlib.Path,
    number: int,
    fields: Mapping[str, Field],
    examples: Iterator[tuple[bytes, Mapping[str, np.ndarray]]],
) -> None:
    """All examples of a shard, in their order; the file appears when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{number:05d}.{os.getpid()}.part"
    writer = ArrayRecordWriter(os.fspath(unfinished), "group_size:1")
    try:
        for content, arrays in examples:
            parts = [field.write(np.asarray(arrays[name])) for name, field in fields.items()]
            writer.write(content + b"".join(parts))
        writer.close()
        with open(unfinished, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(unfinished, shard_file(folder, number))
    finally:
        if writer.is_open():
            writer.close()
        unfinished.unlink(missing_ok=True)


def write_header(
    folder: pathlib.Path,
    fields: Mapping[str, Field],
    made_from: Mapping[str, Any],
    *,
    examples: int,
    shards: int,
) -> None:
    """What the shards hold and of what they were made; last of all: now the store is whole."""
    content = {
        "made_from": dict(made_from),
        "fields": {name: [list(field.shape), field.dtype] for name, field in fields.items()},
        "examples": examples,
        "shards": shards,
    }
    unfinished = folder / f".{HEADER}.tmp"
    unfinished.write_text(json.dumps(content, indent=1))
    os.replace(unfinished, folder / HEADER)


class Store:
    """A finished store; examples are read by their row's number in the split.

    Raises:
      FileNotFoundError: for a folder without a header, or one that lacks shards.
      ValueError: if it was not made from what `expected` says.
    """

    def __init__(self, folder: pathlib.Path, expected: Mapping[str, Any]):
        if not (folder / HEADER).is_file():
            raise FileNotFoundError(
                f"{folder} is no finished store of a teacher's targets: it has no {HEADER}."
            )
        header = json.loads((folder / HEADER).read_text())
        made_from = header["made_from"]
        unlike = [name for name in expected if made_from.get(name) != expected[name]]
        if unlike:
            differences = "; ".join(
                f"{x}: {made_from.get(x)!r} there, {expected[x]!r} here" for x in unlike
            )
            raise ValueError(
                f"{folder} was made from something else ({differences}). Delete the folder of the "
                "stage that labels, and start again."
            )
        self.folder, self.made_from = folder, made_from
        self.fields = {k: Field(tuple(s), dtype) for k, (s, dtype) in header["fields"].items()}
        files = [shard_file(folder, number) for number in range(header["shards"])]
        lacking = [file.name for file in files if not file.is_file()]
        if lacking:
            raise FileNotFoundError(
                f"{folder} lacks {', '.join(lacking[:5])}: delete it, start again."
            )
        self._source = ArrayRecordDataSource([os.fspath(file) for file in files])
        if len(self._source) != header["examples"]:
            raise ValueError(
                f"{folder} holds {len(self._source)} examples, {header['examples']} were written."
            )

    @property
    def bytes_an_example(self) -> int:
        return HASH + sum(field.size for field in self.fields.values())

    def read(
        self, numbers: Sequence[int] | Int[np.ndarray, " B"], batch: Batch
    ) -> dict[str, np.ndarray]:
        """The arrays of these rows, [B, ...] each.

        Raises:
          ValueError: if the teacher was shown something else than this batch.
        """
        records = self._source.__getitems__([int(number) for number in numbers])
        for number, record, content in zip(numbers, records, hashes(batch), strict=True):
            if record[:HASH] != content:
                raise ValueError(
                    f"row {number}: the targets in {self.folder} belong to other tokens than "
                    "those of the batch. Delete the folder of its stage, and start again."
                )
        raw = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), -1)[:, HASH:]
        fields, start = {}, 0
        for name, field in self.fields.items():
            fields[name] = field.read(raw[:, start : start + field.size])
            start += field.size
        return fields
