"""The tokenizer of a model goes with it from stage to stage: a student has its teacher's."""

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

FOLDER = "tokenizer"  # in a stage's folder


def keep(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy the tokenizer of one stage's folder into another's, if there is one."""
    if (source / FOLDER).is_dir():
        shutil.copytree(source / FOLDER, target / FOLDER, dirs_exist_ok=True)


def fetch(name: str, target: pathlib.Path, warn: Callable[[str], Any]) -> None:
    """Write the tokenizer of a model somebody named into a stage's folder, if it has one."""
    import transformers

    if (pathlib.Path(name) / FOLDER).is_dir():
        return keep(pathlib.Path(name), target)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        warn(f"{name} has no tokenizer that transformers opens ({type(error).__name__})")
        return
    tokenizer.save_pretrained(target / FOLDER)


def saver(folder: pathlib.Path, rows: Any) -> Callable[[pathlib.Path], Any] | None:
    """What writes the tokenizer of the model in a stage's folder: its own, or that of the text."""
    if (folder / FOLDER).is_dir():
        return lambda target: shutil.copytree(folder / FOLDER, target, dirs_exist_ok=True)
    return None if rows is None else rows.tokenizer.save


def vocabulary(folder: pathlib.Path) -> dict[str, int] | None:
    """Tokens and their ids of the tokenizer in a stage's folder; None if it has none."""
    if not (folder / FOLDER).is_dir():
        return None
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder / FOLDER).get_vocab()
