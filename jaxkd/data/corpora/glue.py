"""SST-2, sentences of film reviews by sentiment, in GLUE's form; or a stand-in of two kinds."""

import gzip
import hashlib
import pathlib
import re
from collections.abc import Mapping, Sequence

import tensorflow_datasets as tfds

from jaxkd.data.sources.embedded import embedded_documents
from jaxkd.data.sources.find import Builder, ResolvedDataset, Source, decoded, find, lacking
from jaxkd.data.sources.hub import hub_files

LABELS = ("negative", "positive")
_SPLITS = {
    "train": "train",
    "validation": "dev",
}  # ours -> in file names; GLUE's test has no labels
_REPOSITORY = "nyu-mll/glue"
_FILES = "train.tsv and dev.tsv (or .tsv.gz)"

Examples = Mapping[str, Sequence[tuple[str, int]]]  # split -> (sentence, label)


class Sst2(Builder):
    """One example per sentence, in the order of the file."""

    FEATURES = {
        "sentence": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=list(LABELS)),
    }


def open_sst2(
    dir: str | None = None,
    *,
    source: str = "auto",
    cache: pathlib.Path,  # noqa: A002
) -> tuple[ResolvedDataset, Examples, str]:
    """Where it came from, its examples (read lazily) and the fingerprint of their content.

    Args: as for `wikitext2.open_corpus`; a folder holds train.tsv and dev.tsv as GLUE has them.
    Raises:
      ValueError: unknown source; a file that is not UTF-8, has no rows or a row that is none.
      FileNotFoundError: files are missing, or the source insisted on cannot be had.
    """
    found = find(_SOURCE, dir, source)
    digest = hashlib.sha256(repr(sorted(found.content.items())).encode()).hexdigest()[:16]
    builder = Sst2(content=found.content, data_dir=cache / "tfds" / digest)
    builder.prepare()
    return found, {split: _Rows(builder.as_data_source(split=split)) for split in _SPLITS}, digest


class _Rows(Sequence):
    """A data source's examples as (sentence, label)."""

    def __init__(self, examples: Sequence):
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[str, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        example = self._examples[index]
        return example["sentence"].decode(), int(example["label"])


def _read_folder(folder: pathlib.Path) -> tuple[str, Examples]:
    content = {}
    for split, part in _SPLITS.items():
        plain, packed = folder / f"{part}.tsv", folder / f"{part}.tsv.gz"
        if not plain.is_file() and not packed.is_file():
            raise lacking(folder, _FILES)
        file = plain if plain.is_file() else packed
        data = file.read_bytes() if file is plain else gzip.decompress(file.read_bytes())
        content[split] = _read_rows(decoded(data, file), file)
    return "SST-2", content


def _read_rows(text: str, file: pathlib.Path) -> list[tuple[str, int]]:
    """Rows of `sentence<TAB>label` under a header; a quotation mark is an ordinary character."""
    header, *lines = text.removesuffix("\n").split("\n")
    if header.rstrip("\r") != "sentence\tlabel":
        raise ValueError(
            f"{file} begins with {header[:40]!r}; GLUE's SST-2 begins with 'sentence<TAB>label'."
        )
    rows = []
    for number, line in enumerate(lines, 2):
        sentence, tab, label = line.rstrip("\r").rpartition("\t")
        if not tab or label not in ("0", "1") or not sentence.strip():
            raise ValueError(
                f"{file}, line {number} is {line[:60]!r}; needed is a sentence, a tab, and 0 or 1."
            )
        rows.append((sentence.strip(), int(label)))
    if not rows:
        raise ValueError(f"{file} has a header and no rows. Fetch it again.")
    return rows


def _read_hub() -> tuple[str, Examples]:
    import pyarrow.parquet

    names = [f"sst2/{split}-00000-of-00001.parquet" for split in _SPLITS]
    content = {}
    for split, path in zip(_SPLITS, hub_files(_REPOSITORY, names, kind="dataset"), strict=True):
        table = pyarrow.parquet.read_table(path, columns=["sentence", "label"]).to_pydict()
        sentences = (sentence.strip() for sentence in table["sentence"])
        content[split] = list(zip(sentences, table["label"], strict=True))
    return "SST-2", content


def _embedded() -> tuple[str, Examples]:
    """Sentences of Python's prose: does one speak of what is returned or raised (1), or not (0)?

    The word itself is cut out, so that it must be told from the others; as many of either kind.
    """
    content = {}
    documents = embedded_documents()
    for split in _SPLITS:
        kinds: tuple[list[str], list[str]] = ([], [])
        for text in documents[split]:
            for sentence in re.split(r"(?<=[.!?])\s+|\n", text):
                words = re.findall(r"[A-Za-z']+", sentence.lower())
                if 5 <= len(words) <= 20:
                    told = [word for word in words if not re.match(r"(return|rais)", word)]
                    kinds[len(told) < len(words)].append(" ".join(told))
        count = min(map(len, kinds))
        rows = [(sentence, label) for label in (0, 1) for sentence in kinds[label][:count]]
        content[split] = sorted(rows, key=lambda row: hashlib.sha256(row[0].encode()).digest())
    return "embedded Python prose", content


_SOURCE = Source("glue/SST-2", _FILES, _REPOSITORY, _read_folder, _read_hub, _embedded)
