"""Folders as reports name them, and what a folder lacks."""

import os
import pathlib


def display_path(folder: pathlib.Path) -> str:
    """Its path as reports give it: a reader has another $JAXKD_DATA, but the same inside it."""
    root = pathlib.Path(os.environ.get("JAXKD_DATA") or "/").expanduser()
    inside = root != pathlib.Path("/") and folder.is_relative_to(root)
    return f"$JAXKD_DATA/{folder.relative_to(root)}" if inside else str(folder)


def missing_files(folder: pathlib.Path, needed: str) -> FileNotFoundError:
    """The error of a folder without the files; it names what is there."""
    present = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    return FileNotFoundError(
        f"{folder} holds {present}; needed are {needed}. Put all there, or leave data.dir empty to "
        "look at $JAXKD_DATA and the hub."
    )
