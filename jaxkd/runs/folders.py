"""Folders of stages: what is finished, what is put aside, and JSON files written atomically."""

import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

from jaxkd.checkpoint.series import Series

REPLACED = "replaced"


def prepare(folder: pathlib.Path, fingerprint: str, say: Callable[[str], Any]) -> None:
    """Make `folder` empty, or the unfinished one of this very configuration.

    What another configuration left is moved to `replaced/` beside it, and moved back when that
    configuration returns, so that nothing computed is lost; `say` is called with where it went.
    A folder whose config.json is damaged is moved there too.
    """
    stored = read_record(folder / "config.json")
    if stored is not None and stored["fingerprint"] != fingerprint:
        aside = folder.parent / REPLACED / f"{folder.name}-{stored['fingerprint']}"
        shutil.rmtree(aside, ignore_errors=True)
        _move(folder, aside)
        say(
            f"{folder.name}: the results of another configuration were moved to {aside}; they come "
            "back when it is run again"
        )
    elif stored is None and _has_content(folder):
        aside = _unused(folder.parent / REPLACED, f"{folder.name}-unreadable")
        _move(folder, aside)
        say(
            f"{folder.name}: {folder / 'config.json'} cannot be read, so that the folder's "
            f"configuration is not known; it was moved to {aside}"
        )
    elif stored is None and folder.exists():
        shutil.rmtree(folder)  # cut off before its first line: empty
    back = folder.parent / REPLACED / f"{folder.name}-{fingerprint}"
    if back.exists() and not folder.exists():
        _move(back, folder)
    folder.mkdir(parents=True, exist_ok=True)


def finished(folder: pathlib.Path, fingerprint: str) -> dict[str, Any] | None:
    """done.json of a stage that is finished in this very configuration; None otherwise."""
    record = read_record(folder / "done.json")
    return record if record is not None and record["fingerprint"] == fingerprint else None


def newest_checkpoint(folder: pathlib.Path) -> str | None:
    """The checkpoint that is the stage's model, relative to its folder: the best, else the last."""
    for name in ("best", "checkpoint"):
        newest = Series(folder / name).newest()
        if newest is not None:
            return f"{name}/{newest.name}"
    return None


def write_json(content: Any, file: pathlib.Path) -> None:
    """Atomically: a kill leaves the old file or the new one."""
    unfinished = file.with_name(f".{file.name}.tmp")
    with open(unfinished, "w") as stream:
        json.dump(content, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(unfinished, file)


def read_record(file: pathlib.Path) -> dict[str, Any] | None:
    """config.json or done.json; None if it is missing or damaged."""
    try:
        record = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return (
        record if isinstance(record, dict) and isinstance(record.get("fingerprint"), str) else None
    )


def _has_content(folder: pathlib.Path) -> bool:
    return folder.is_dir() and any(
        not path.name.startswith(".") and path.name != "config.json" for path in folder.iterdir()
    )


def _unused(folder: pathlib.Path, name: str) -> pathlib.Path:
    number = 1
    while (folder / f"{name}-{number}").exists():
        number += 1
    return folder / f"{name}-{number}"


def _move(source: pathlib.Path, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
