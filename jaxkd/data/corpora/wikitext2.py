"""WikiText-2 as documents: from a folder, from the hub, or a stand-in text every Python carries."""

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Iterable, Sequence

import tensorflow_datasets as tfds

from jaxkd.core.names import did_you_mean
from jaxkd.data.sources.embedded import Documents, embedded_documents
from jaxkd.data.sources.find import Builder, Source, decoded, find, lacking
from jaxkd.data.sources.hub import hub_files

SPLITS = {"train": "train", "validation": "valid", "test": "test"}  # ours -> in file names
_FORMATS = {"tokens": "WikiText-2", "raw": "WikiText-2 (raw)"}  # file ending -> name
_REPOSITORY = "Salesforce/wikitext"


class Wikitext2(Builder):
    """One example per document, in the order of the file.

    `open_corpus` gives each content a `data_dir` of its own.
    """

    VERSION = tfds.core.Version("1.0.0")
    FEATURES = {"text": tfds.features.Text()}


class _Texts(Sequence):
    """The "text" of a data source's examples; a document is read when it is asked for."""

    def __init__(self, examples):
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._examples[index % len(self)]["text"].decode()


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A prepared text and what is to be said of where it comes from."""

    name: str  # "WikiText-2", "WikiText-2 (raw)" or "embedded Python prose"
    origin: str  # "folder ..", "hub .." or "embedded, .. (why the others could not be had)"
    embedded: bool  # True: its numbers must never be shown as WikiText numbers
    fingerprint: str  # of the documents' content, whichever way they came
    data_dir: pathlib.Path = dataclasses.field(repr=False)  # where TFDS keeps them

    def documents(self, split: str) -> Sequence[str]:
        """The documents of "train", "validation" or "test", in order, read lazily."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}. {did_you_mean(split, SPLITS)}")
        return _Texts(Wikitext2(data_dir=self.data_dir).as_data_source(split=split))


def open_corpus(
    dir: str | None = None,
    *,
    source: str = "auto",
    cache: pathlib.Path,  # noqa: A002
) -> Corpus:
    """The first that can be had of: a folder, the hub, the embedded prose; prepared once.

    Args:
      dir: folder with wiki.{train,valid,test}.tokens (or .raw). None: `$JAXKD_DATA/wikitext-2`
        if that exists. A folder that is named or exists must be whole; nothing replaces it.
      source: "folder", "hub" or "embedded" insists on that one, whatever `dir` says.
      cache: the documents are kept under `cache / "tfds" / fingerprint`.
    Raises:
      ValueError: unknown source; a file without text or not in UTF-8.
      FileNotFoundError: files are missing, or the source insisted on cannot be had.
    """
    found = find(_SOURCE, dir, source)
    empty = [split for split in SPLITS if not found.content[split]]
    if empty:
        raise ValueError(
            f"{found.name} ({found.origin}) has no documents in {' and '.join(empty)}. Give "
            f"data.dir a folder with {_files('tokens')}."
        )
    fingerprint = _fingerprint(found.content)
    data_dir = cache / "tfds" / fingerprint
    Wikitext2(content=found.content, data_dir=data_dir).prepare()
    return Corpus(found.name, found.origin, found.embedded, fingerprint, data_dir)


def _fingerprint(documents: Documents) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        for text in [split, *documents[split]]:
            content = text.encode()
            digest.update(len(content).to_bytes(8, "big") + content)
        digest.update(b"\0" * 8)
    return digest.hexdigest()[:16]


def split_documents(lines: Iterable[str]) -> list[str]:
    """Lines of a WikiText file -> documents, each begun by a heading ` = Title = `.

    A heading stands between empty lines; 31 lines of WikiText-2 look like one and are pieces of a
    formula or a legend. Lines are stripped, empty ones dropped.

    >>> split_documents([" ", " = A = ", " ", " x = ", " = 1 = ", " = = B = = ", "", "= C = "])
    ['= A =\\nx =\\n= 1 =\\n= = B = =', '= C =']
    """
    documents: list[list[str]] = []
    rows = ["", *(line.strip() for line in lines), ""]
    for before, line, after in zip(rows, rows[1:], rows[2:], strict=False):
        alone = not before and not after
        if not line:
            continue
        if not documents or (alone and re.fullmatch(r"= (?!= ).+ =", line)):
            documents.append([])
        documents[-1].append(line)
    return ["\n".join(document) for document in documents]


def _files(ending: str) -> str:
    return ", ".join(f"wiki.{part}.{ending}" for part in SPLITS.values())


def _read_folder(folder: pathlib.Path) -> tuple[str, Documents]:
    present = {path.name for path in folder.iterdir()}
    for ending, name in _FORMATS.items():
        if present.issuperset(f"wiki.{part}.{ending}" for part in SPLITS.values()):
            return name, {
                split: _read_file(folder / f"wiki.{part}.{ending}")
                for split, part in SPLITS.items()
            }
    raise lacking(folder, f"{_files('tokens')}, or the same three ending in .raw")


def _read_file(file: pathlib.Path) -> list[str]:
    content = file.read_bytes()
    documents = split_documents(decoded(content, file).split("\n"))
    if not documents:
        raise ValueError(f"{file} has {len(content)} bytes and no text. Fetch it again.")
    return documents


def _read_hub() -> tuple[str, Documents]:
    import pyarrow.parquet

    names = [f"wikitext-2-v1/{split}-00000-of-00001.parquet" for split in SPLITS]
    paths = hub_files(_REPOSITORY, names, kind="dataset")
    tables = [pyarrow.parquet.read_table(path, columns=["text"]) for path in paths]
    lines = [table.column("text").to_pylist() for table in tables]
    return "WikiText-2", {
        split: split_documents(text) for split, text in zip(SPLITS, lines, strict=True)
    }


_SOURCE = Source(
    inside="wikitext-2",
    files=f"{_files('tokens')} (or .raw)",
    repository=_REPOSITORY,
    read_folder=_read_folder,
    read_hub=_read_hub,
    # Looked up when it is called: tests put another text in its place.
    embedded=lambda: ("embedded Python prose", embedded_documents()),
)
