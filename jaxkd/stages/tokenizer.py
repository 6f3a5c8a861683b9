"""The tokenizer of a model goes with it from stage to stage: a student has its teacher's."""

import hashlib
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

from jaxkd.data.tokenizers.open_folder import VOCABULARIES, open_folder
from jaxkd.data.tokenizers.saving import save_tokenizer
from jaxkd.hub.sentence_transformers import transformer_folder

FOLDER = "tokenizer"  # in a stage's folder
KEPT = 4  # vocabularies
_vocabularies: dict[str, dict[str, int]] = {}


def keep(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy the tokenizer of one stage's folder into another's, if there is one."""
    if (source / FOLDER).is_dir():
        shutil.copytree(source / FOLDER, target / FOLDER, dirs_exist_ok=True)


def write(tokenizer: Any, target: pathlib.Path) -> None:
    """Put the tokenizer of the text beside a model that learns from it."""
    tokenizer.save(target / FOLDER)


def fetch(name: str, target: pathlib.Path, warn: Callable[[str], Any]) -> None:
    """Write the tokenizer of a model somebody named into a stage's folder, if it has one.

    Raises:
      ValueError: if it has one that cannot be read.
    """
    source = pathlib.Path(name)
    if (source / FOLDER).is_dir():
        return keep(source, target)
    if source.is_dir():
        source = transformer_folder(source)
        # Without a vocabulary transformers would make one up, of the special tokens alone.
        if not any((source / file).is_file() for file in VOCABULARIES):
            return warn(f"{name} has no tokenizer (none of {', '.join(VOCABULARIES)})")
        return save_tokenizer(open_folder(source, masked=False), target / FOLDER)
    import transformers

    save_tokenizer(transformers.AutoTokenizer.from_pretrained(name), target / FOLDER)


def saver(folder: pathlib.Path, rows: Any) -> Callable[[pathlib.Path], Any] | None:
    """What writes the tokenizer of the model in a stage's folder: its own, or that of the text."""
    if (folder / FOLDER).is_dir():
        return lambda target: shutil.copytree(folder / FOLDER, target, dirs_exist_ok=True)
    return None if rows is None else rows.tokenizer.save


def vocabulary(folder: pathlib.Path) -> dict[str, int] | None:
    """Tokens and their ids of the tokenizer in a stage's folder; None if it has none.

    Stages ask for it again and again; the last ones are kept, by the contents of their files.
    """
    if not (folder / FOLDER).is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(path for path in (folder / FOLDER).iterdir() if path.is_file()):
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    key = digest.hexdigest()
    if key not in _vocabularies:
        while len(_vocabularies) >= KEPT:
            _vocabularies.pop(next(iter(_vocabularies)))
        _vocabularies[key] = open_folder(folder / FOLDER, masked=False).get_vocab()
    return dict(_vocabularies[key])
