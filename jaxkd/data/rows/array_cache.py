"""Rows of tokens on disk: written a few at a time, whole or not at all, mapped into memory."""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

META = "meta.json"
Blocks = Iterator[Int[np.ndarray, "rows columns"]]


def cached_arrays(
    cache: pathlib.Path,
    fingerprint: str,
    columns: int,
    make: Callable[[], Mapping[str, Blocks]],
    warn: Callable[[str], Any] = lambda message: None,
) -> dict[str, Int[np.ndarray, "rows {columns}"]]:
    """The int32 arrays of that fingerprint, by name: from the cache, or made and put there.

    They are read-only views of files, so that a corpus larger than memory can be trained on.

    Args:
      columns: of every array.
      make: gives blocks of rows for each array; called if the cache has none.
      warn: is called where a damaged cache is made anew.
    """
    folder = cache / "rows" / fingerprint
    if folder.exists():
        arrays = _open(folder, columns)
        if arrays is not None:
            return arrays
        warn(f"{folder} is damaged; the rows are made anew.")
        shutil.rmtree(folder)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        meta = {name: _write(unfinished / name, blocks) for name, blocks in make().items()}
        (unfinished / META).write_text(json.dumps(meta))
        try:
            os.replace(unfinished, folder)
        except OSError:  # another process was faster: its folder is there
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    arrays = _open(folder, columns)
    assert arrays is not None, f"{folder} was just written"
    return arrays


def _write(file: pathlib.Path, blocks: Blocks) -> dict[str, Any]:
    rows, digest = 0, hashlib.sha256()
    with open(file, "wb") as stream:
        for block in blocks:
            raw = np.ascontiguousarray(block, "<i4").tobytes()
            digest.update(raw)
            stream.write(raw)
            rows += len(block)
        stream.flush()
        os.fsync(stream.fileno())
    return {"rows": rows, "sha256": digest.hexdigest()}


def _open(folder: pathlib.Path, columns: int) -> dict[str, np.ndarray] | None:
    """The arrays; None if a file is not what was written.

    Files are compared by size always, and by digest where they changed after they were written.
    """
    try:
        meta = json.loads((folder / META).read_text())
        arrays = {}
        for name, entry in meta.items():
            file = folder / name
            if file.stat().st_size != 4 * columns * entry["rows"]:
                return None
            if file.stat().st_mtime_ns > (folder / META).stat().st_mtime_ns:
                with open(file, "rb") as stream:
                    if hashlib.file_digest(stream, "sha256").hexdigest() != entry["sha256"]:
                        return None
            shape = (entry["rows"], columns)
            empty = np.zeros(shape, np.int32)
            arrays[name] = np.memmap(file, "<i4", "r", shape=shape) if entry["rows"] else empty
        return arrays
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
