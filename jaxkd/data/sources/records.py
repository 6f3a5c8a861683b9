"""Files of a data set line by line, gzipped or not, or rows of the hub's; a part held out."""

import gzip
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from jaxkd.data.sources.find import decoded, lacking
from jaxkd.data.sources.hub import hub_files


def text_of(folder: pathlib.Path, name: str) -> tuple[str, pathlib.Path]:
    """The text of a file or of its gzipped form, and which of them it was.

    Raises:
      FileNotFoundError: if neither is there; says what is.
      ValueError: if it is not UTF-8 or not gzip.
    """
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return unpacked(file), file
    raise lacking(folder, f"{name} (or {name}.gz)")


def unpacked(file: pathlib.Path) -> str:
    """The text of a file, gzipped or not; errors as for `text_of`."""
    data = file.read_bytes()
    try:
        data = gzip.decompress(data) if file.suffix == ".gz" else data
    except (OSError, EOFError) as error:
        raise ValueError(f"{file} is no whole gzip file ({error}). Fetch it again.") from error
    return decoded(data, file)


def records(folder: pathlib.Path, name: str, read: Callable[[dict[str, Any]], Any]) -> list[Any]:
    """What `read` makes of each JSON line.

    Raises:
      ValueError: names the line that is no JSON, or lacks what is read; or a file without lines.
    """
    text, file = text_of(folder, name)
    found = []
    # Not splitlines: JSON may hold its other ends of lines as they are.
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        try:
            found.append(read(json.loads(line)))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"{file}, line {number} is {line[:60]!r}, and cannot be read: "
                f"{type(error).__name__}: {error}."
            ) from error
    if not found:
        raise ValueError(f"{file} has no lines. Fetch it again.")
    return found


def hub_records(
    repository: str, files: Sequence[str], read: Callable[[dict[str, Any]], Any]
) -> list[list[Any]]:
    """What `read` makes of each row of each Parquet file of a data set on the HuggingFace hub.

    Raises:
      Exception: as `hub_files` says; KeyError, ValueError for a row that lacks what is read.
    """
    import pyarrow.parquet

    paths = hub_files(repository, files, kind="dataset")
    return [[read(row) for row in pyarrow.parquet.read_table(path).to_pylist()] for path in paths]


def held_out(
    items: Sequence[Any], key: Callable[[Any], str], percent: int = 5
) -> tuple[list[Any], list[Any]]:
    """Those that stay and those that are held out: by a hash of what they are, so that equal keys
    are never on both sides and nothing depends on the order."""
    kept: tuple[list[Any], list[Any]] = ([], [])
    for item in items:
        digest = int(hashlib.sha256(key(item).encode()).hexdigest(), 16)
        kept[digest % 100 < percent].append(item)
    return kept
