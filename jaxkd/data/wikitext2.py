"""WikiText-2 as documents: from a folder, from the hub, or a stand-in text every Python carries."""

import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
import platform
import re
from collections.abc import Iterable, Iterator, Sequence

import tensorflow_datasets as tfds

from jaxkd.core.names import did_you_mean
from jaxkd.data.embedded import Documents, embedded_documents
from jaxkd.data.hub_files import hub_files, reason

SPLITS = {"train": "train", "validation": "valid", "test": "test"}  # ours -> in file names
SOURCES = ("auto", "folder", "hub", "embedded")
_FORMATS = {"tokens": "WikiText-2", "raw": "WikiText-2 (raw)"}  # file ending -> name
_REPOSITORY = "Salesforce/wikitext"


class Wikitext2(tfds.core.GeneratorBasedBuilder):
    """One example per document, in the order of the file; needs no TensorFlow.

    `documents` are needed by the first `download_and_prepare()` only, and come from
    `open_corpus`, which gives each content a `data_dir` of its own.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, documents: Documents | None = None, **kwargs):
        self._documents = documents
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        if self._documents is None:
            raise ValueError("Wikitext2 has not been prepared here. Call open_corpus(cache=...).")
        return {name: self._generate_examples(name) for name in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, str]]]:
        for number, text in enumerate(self._documents[split]):
            yield number, {"text": text}


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
    if source not in SOURCES:
        raise ValueError(f"unknown data.source {source!r}. {did_you_mean(source, SOURCES)}")
    why = "asked for"
    name = documents = None
    if source in ("auto", "folder"):
        folder, why = _folder(dir)
        if folder is not None:
            name, documents = _read_folder(folder)
            origin = f"folder {folder}"
        elif source == "folder":
            raise FileNotFoundError(f"data.source is 'folder', but {why}. Set data.dir.")
    if documents is None and source in ("auto", "hub"):
        try:
            name, documents = "WikiText-2", _read_hub()
            origin = f"hub {_REPOSITORY}"
        except Exception as error:  # the hub raises its own, httpx's and the system's kinds
            failed = f"{_REPOSITORY} could not be had from the hub: {reason(error)}"
            if source == "hub":
                raise FileNotFoundError(
                    f"data.source is 'hub', but {failed}. Give data.dir a folder with "
                    f"{_files('tokens')}, or go online once so that it is cached."
                ) from error
            why = f"{why}; {failed}"
    if documents is None:
        name, documents = "embedded Python prose", embedded_documents()
        origin = f"embedded, of Python {platform.python_version()} ({why})"
    empty = [split for split in SPLITS if not documents[split]]
    if empty:
        raise ValueError(
            f"{name} ({origin}) has no documents in {' and '.join(empty)}. Give data.dir a folder "
            f"with {_files('tokens')}."
        )
    fingerprint = _fingerprint(documents)
    data_dir = cache / "tfds" / fingerprint
    _prepare(documents, data_dir)
    return Corpus(name, origin, name == "embedded Python prose", fingerprint, data_dir)


def _prepare(documents: Documents, data_dir: pathlib.Path) -> None:
    """Write the documents unless they are there. TFDS renames a whole folder into place."""
    builder = Wikitext2(documents=documents, data_dir=data_dir)
    if builder.data_path.exists():
        return
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself by print()
            builder.download_and_prepare()
    except OSError:  # another process was faster: its folder stands where ours was to go
        if not builder.data_path.exists():
            raise


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


def _folder(dir: str | None) -> tuple[pathlib.Path | None, str]:
    """The folder to read, or None and why there is none."""
    if dir:
        return pathlib.Path(dir).expanduser(), ""
    if not os.environ.get("JAXKD_DATA"):
        return None, "no data.dir is given and $JAXKD_DATA is not set"
    folder = pathlib.Path(os.environ["JAXKD_DATA"]).expanduser() / "wikitext-2"
    if not folder.is_dir():
        return None, "no data.dir is given and $JAXKD_DATA has no folder wikitext-2"
    return folder, ""


def _read_folder(folder: pathlib.Path) -> tuple[str, Documents]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a folder; data.dir names one with {_files('tokens')} (or .raw). "
            "Correct it, or leave it empty to look at $JAXKD_DATA and the hub."
        )
    present = {path.name for path in folder.iterdir()}
    for ending, name in _FORMATS.items():
        if present.issuperset(f"wiki.{part}.{ending}" for part in SPLITS.values()):
            return name, {
                split: _read_file(folder / f"wiki.{part}.{ending}")
                for split, part in SPLITS.items()
            }
    found = ", ".join(sorted(present)[:8]) or "nothing"
    raise FileNotFoundError(
        f"{folder} holds {found}; needed are {_files('tokens')}, or the same three ending in .raw. "
        "Put all three there, or leave data.dir empty to look at $JAXKD_DATA and the hub."
    )


def _read_file(file: pathlib.Path) -> list[str]:
    content = file.read_bytes()
    try:
        documents = split_documents(content.decode().split("\n"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}. "
            "Convert it to UTF-8, or fetch it again."
        ) from error
    if not documents:
        raise ValueError(f"{file} has {len(content)} bytes and no text. Fetch it again.")
    return documents


def _read_hub() -> Documents:
    import pyarrow.parquet

    names = [f"wikitext-2-v1/{split}-00000-of-00001.parquet" for split in SPLITS]
    paths = hub_files(_REPOSITORY, names, kind="dataset")
    tables = [pyarrow.parquet.read_table(path, columns=["text"]) for path in paths]
    lines = [table.column("text").to_pylist() for table in tables]
    return {split: split_documents(text) for split, text in zip(SPLITS, lines, strict=True)}
