"""Your own files: a table or lines of text for each split, a TFDS folder, or a hub id."""

import ast
import pathlib
from collections.abc import Sequence

from jaxkd.core.names import did_you_mean
from jaxkd.data.sources.find_files import display_path
from jaxkd.data.sources.hub import dataset_splits
from jaxkd.data.sources.records import FORMATS, Records, open_records, text_lines, tfds_folder

TFDS = "dataset_info.json"  # what a folder has that a TFDS builder prepared
HELD_OUT = 10  # percent of the training rows that validate, where there is no validation file


def names_of(value: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several: "a", "a,b", "('a','b')" or a sequence.

    >>> names_of("('train.en','train.de')"), names_of("a, b"), names_of(""), names_of(("a", "b"))
    (('train.en', 'train.de'), ('a', 'b'), (), ('a', 'b'))
    """
    if not isinstance(value, str):
        return tuple(value)
    if value.strip().startswith(("(", "[")):
        try:
            return tuple(map(str, ast.literal_eval(value.strip())))
        except (ValueError, SyntaxError):
            raise ValueError(
                f"{value!r} is no list of names; write \"('a','b')\" or 'a,b'."
            ) from None
    return tuple(name.strip() for name in value.split(",") if name.strip())


def table_splits(files: dict[str, str]) -> tuple[dict[str, Records], str, str]:
    """Rows {column: value} of each split, with a name and an origin for reports.

    Args:
      files: split -> a file of FORMATS; for "train" also a folder that a TFDS builder prepared, or
        a hub id, whose other splits are then taken too unless they are named.
    Raises:
      FileNotFoundError, ValueError: for a file that is not there or of no known format.
    """
    train = files["train"]
    path = pathlib.Path(train).expanduser()
    if path.is_dir():
        if not (path / TFDS).is_file():
            raise FileNotFoundError(
                f"{path} is a folder without {TFDS}. Give data.train a file "
                f"({', '.join(FORMATS)}), a folder that a TFDS builder prepared, or a hub id."
            )
        splits, name, origin = tfds_folder(path), path.absolute().name, "TFDS folder"
        splits = {split: rows for split, rows in splits.items() if split in (*files, *OTHERS)}
        origin = f"{origin} {display_path(path)}"
    elif not path.is_file() and _is_hub_id(train):
        folder_splits = dataset_splits(train)
        splits = {
            split: joined([open_records(f) for f in each]) for split, each in folder_splits.items()
        }
        name, origin = train, f"hub {train}"
    else:
        splits, name = {"train": open_records(existing(train, "data.train"))}, path.name
        origin = f"file {display_path(path)}"
    for split, file in files.items():
        if split != "train" and file:
            other = existing(file, f"data.{split}")
            splits[split] = open_records(other)
            origin += f", {split} {display_path(other)}"
    if "train" not in splits:
        raise ValueError(f"{train} has the splits {', '.join(splits)}, and no split 'train'.")
    return splits, name, origin


OTHERS = ("validation", "test")


def joined(parts: Sequence[Records]) -> Records:
    """The rows of several files one after the other."""
    if len(parts) == 1:
        return parts[0]

    def read():
        for part in parts:
            yield from part.read()

    return Records(read, tuple(f for part in parts for f in part.files), parts[0].how)


def existing(name: str, field: str) -> pathlib.Path:
    """The file of that name.

    Raises:
      FileNotFoundError: names the field and the files of the folder.
    """
    file = pathlib.Path(name).expanduser()
    if file.is_file():
        return file
    present = [p.name for p in file.parent.iterdir()] if file.parent.is_dir() else []
    hint = did_you_mean(file.name, present) if present else f"There is no folder {file.parent}."
    raise FileNotFoundError(f"{field}={name!r}: there is no such file. {hint}")


def _is_hub_id(name: str) -> bool:
    """ "owner/name" or "owner/name:subset", without a file's ending."""
    repository = name.partition(":")[0]
    return repository.count("/") == 1 and "." not in repository.rsplit("/", 1)[1]


def column(named: str, columns: Sequence[str], taken: Sequence[str], field: str) -> str:
    """The column that is named, or the only one that is left.

    Args:
      named: what the user wrote; may be empty.
      taken: columns that other fields name.
    Raises:
      ValueError: for a column that is not there; where several could be meant.
    """
    if named:
        if named not in columns:
            raise ValueError(f"{field}={named!r}. {did_you_mean(named, columns)}")
        return named
    left = [name for name in columns if name not in taken]
    if len(left) == 1:
        return left[0]
    raise ValueError(
        f"{field} is empty, and the columns are {', '.join(columns)}: say which it is, "
        f"--config.{field}=NAME."
    )


def documents(file: pathlib.Path) -> Records:
    """A text file's documents: separated by empty lines; where there are none, each line is one.

    A file of which the first 1,000 lines have no empty line among them has a document a line.
    """
    rows = text_lines(file)

    def read():
        gap = blank = False
        for number, (_, line) in enumerate(rows.read()):
            blank = blank or (gap and bool(line.strip()))  # empty lines at the end separate nothing
            gap = not line.strip()
            if blank or number == 1000:
                break
        part: list[str] = []
        start = ""
        for where, line in rows.read():
            if line.strip():
                if not blank:
                    yield where, line.strip()
                    continue
                start = start or where
                part.append(line.strip())
            elif part:
                yield start, "\n".join(part)
                part, start = [], ""
        if part:
            yield start, "\n".join(part)

    return Records(read, (file,), "documents")
