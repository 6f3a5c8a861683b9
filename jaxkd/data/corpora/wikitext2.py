"""WikiText-2 as documents, each an article."""

import itertools
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from jaxkd.data.sources.embedded import embedded_documents
from jaxkd.data.sources.find import Corpus, Splits
from jaxkd.data.sources.find_files import missing_files
from jaxkd.data.sources.records import Records, lines, parquet

FILES = {"train": "train", "validation": "valid", "test": "test"}  # our splits -> in file names
ENDINGS = ("tokens", "raw")  # the word-level release, and the one with all words


def split_documents(rows: Iterable[str]) -> Iterator[str]:
    """Lines of a WikiText file -> documents, each begun by a heading ` = Title = `.

    A heading stands between empty lines; 31 lines of WikiText-2 look like one and are pieces of a
    formula or a legend. Lines are stripped, empty ones dropped.

    >>> rows = [" ", " = A = ", " ", " x = ", " = 1 = ", " = = B = = ", "", "= C = "]
    >>> list(split_documents(rows))
    ['= A =\\nx =\\n= 1 =\\n= = B = =', '= C =']
    """
    document: list[str] = []
    before, line = "", ""

    def starts(before: str, line: str, after: str) -> bool:
        return not before and not after and bool(re.fullmatch(r"= (?!= ).+ =", line))

    for after in itertools.chain((row.strip() for row in rows), ("",)):
        if line:
            if document and starts(before, line, after):
                yield "\n".join(document)
                document = []
            document.append(line)
        before, line = line, after
    if line:
        if document and starts(before, line, ""):
            yield "\n".join(document)
            document = []
        document.append(line)
    if document:
        yield "\n".join(document)


def _file_names(ending: str) -> str:
    return ", ".join(f"wiki.{part}.{ending}" for part in FILES.values())


def _read_folder(folder: pathlib.Path) -> Splits:
    present = {path.name for path in folder.iterdir()}
    for ending in ENDINGS:
        if present.issuperset(f"wiki.{part}.{ending}" for part in FILES.values()):
            return {
                split: _documents(folder / f"wiki.{part}.{ending}") for split, part in FILES.items()
            }
    raise missing_files(folder, f"{_file_names('tokens')}, or the same three ending in .raw")


def _documents(file: pathlib.Path) -> Records:
    def read() -> Iterator[tuple[str, str]]:
        count = 0
        for count, text in enumerate(split_documents(line for _, line in lines(file)), 1):
            yield f"{file}, document {count}", text
        if not count:
            raise ValueError(f"{file} has {file.stat().st_size} bytes and no text. Fetch it again.")

    return Records(read, (file,), "wikitext documents")


def _read_hub(files: list[pathlib.Path]) -> Splits:
    def records(file: pathlib.Path) -> Records:
        def read() -> Iterator[tuple[str, str]]:
            texts = (row["text"] for row in parquet(file))
            for count, text in enumerate(split_documents(texts), 1):
                yield f"{file}, document {count}", text

        return Records(read, (file,), "wikitext documents")

    return {split: records(file) for split, file in zip(FILES, files, strict=True)}


def _embedded() -> tuple[str, Mapping[str, Sequence[str]]]:
    return "embedded Python prose", embedded_documents()


WIKITEXT2 = Corpus(
    name="WikiText-2",
    inside="wikitext-2",
    files=f"{_file_names('tokens')} (or .raw)",
    read_folder=_read_folder,
    repository="Salesforce/wikitext",
    hub_files=tuple(f"wikitext-2-v1/{split}-00000-of-00001.parquet" for split in FILES),
    read_hub=_read_hub,
    embedded=_embedded,
    known=frozenset({"9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f"}),
)
