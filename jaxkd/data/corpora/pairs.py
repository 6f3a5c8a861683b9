"""Pairs of a source and its targets: parallel text as Multi30k, or a stand-in to be reversed."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from jaxkd.core.names import did_you_mean
from jaxkd.data.corpora import alfred, gsm8k, scan, summaries
from jaxkd.data.corpora.noisy_letters import noisy_letters
from jaxkd.data.sources.embedded import embedded_documents
from jaxkd.data.sources.find import Builder, ResolvedDataset, Source, find, lacking
from jaxkd.data.sources.hub import hub_files
from jaxkd.data.sources.records import unpacked

SPLITS = ("train", "validation", "test")
# ours -> what its files may be called, in the order they are looked for
_NAMES = {
    "train": ("train",),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "test_2016_flickr"),
}
MADE = "made by jaxkd itself"  # where a corpus is from that no files are read for
_HUB = "bentrevett/multi30k"

Pair = tuple[str, tuple[str, ...]]  # a source, and one target or several that are as good
Content = Mapping[str, Sequence[Pair]]  # split -> pairs


class ParallelText(Builder):
    """One example per pair, in the order of the files."""

    FEATURES = {
        "source": tfds.features.Text(),
        "targets": tfds.features.Sequence(tfds.features.Text()),
    }


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What a corpus is called, and where it is looked for."""

    title: str  # as reports call it
    source: Source | None  # None: it is `made`
    made: Callable[[], tuple[str, Content]] | None = None


def parallel_text(languages: Sequence[str]) -> Corpus:
    """Lines of two languages, in files `train.en`, `train.de`, `val.en` and so on, or gzipped."""
    given, wanted = languages
    files = f"train, val and test, each as .{given} and .{wanted} (or with .gz)"
    read = functools.partial(_read_folder, languages=(given, wanted))
    hub = functools.partial(_read_hub, languages=(given, wanted))
    title = f"Multi30k {given}-{wanted}"
    return Corpus(title, Source("multi30k", files, _HUB, read, hub, reversed_prose))


def _of(
    title: str,
    inside: str,
    files: str,
    hub: str,
    read: Callable[..., tuple[str, Content]],
    check: Callable[[Sequence[str]], None] = lambda languages: None,
    read_hub: Callable[[], tuple[str, Content]] | None = None,
) -> Callable[[Sequence[str]], Corpus]:
    """A corpus that is read from its own files, which the hub may have too."""

    def corpus(languages: Sequence[str]) -> Corpus:
        check(languages)
        sides = (languages[0], languages[1])
        from_folder = functools.partial(read, languages=sides)
        own = read_hub or _no_hub
        return Corpus(title, Source(inside, files, hub, from_folder, own, reversed_prose))

    return corpus


def _noisy_letters(languages: Sequence[str]) -> Corpus:
    return Corpus("noisy_letters words", None, noisy_letters)


def _no_hub() -> tuple[str, Content]:
    raise FileNotFoundError("its files are not read from there")


CORPORA: dict[str, Callable[[Sequence[str]], Corpus]] = {
    "multi30k": parallel_text,
    "noisy_letters": _noisy_letters,
    "alfred": _of(
        "ALFRED", "alfred", "train.jsonl and valid_seen.jsonl (or with .gz)",
        "github.com/askforalfred/alfred", alfred.read_folder, alfred.check,
    ),
    "scan": _of(
        "SCAN", "scan", "simple_split, length_split and add_prim_split",
        "github.com/brendenlake/SCAN", scan.read_folder, scan.check,
    ),
    "scitldr": _of(
        "SciTLDR", "scitldr", "train.jsonl, dev.jsonl and test.jsonl (or with .gz)",
        "github.com/allenai/scitldr", summaries.read_scitldr,
    ),
    "tldr": _of(
        "TL;DR", "tldr", "train.jsonl, validation.jsonl and test.jsonl (or with .gz)",
        summaries.TLDR_HUB, summaries.read_tldr, read_hub=summaries.read_tldr_hub,
    ),
    "gsm8k": _of(
        "GSM8K", "gsm8k", "train.jsonl and test.jsonl (or with .gz)",
        gsm8k.HUB, gsm8k.read_folder, read_hub=gsm8k.read_hub,
    ),
}  # fmt: skip


def open_pairs(
    corpus: str,
    dir: str | None = None,  # noqa: A002
    *,
    source: str = "auto",
    languages: Sequence[str] = ("en", "de"),
    cache: pathlib.Path,
) -> tuple[str, ResolvedDataset, Content, str]:
    """The corpus' title, where it came from, its pairs (read lazily), and their fingerprint.

    Args:
      corpus: one of CORPORA.
      dir, source: as for `sources.find`.
      languages: what is read and what is written, of a corpus that has several: the endings of
        multi30k's files; a division of scan, and actions; what of alfred (alfred.py).
    Raises:
      ValueError: unknown corpus or source; a file that is not UTF-8; files of unequal length; an
        empty line; a split without pairs.
      FileNotFoundError: a language or a file that is not there.
    """
    if corpus not in CORPORA:
        raise ValueError(f"data.corpus={corpus!r}. {did_you_mean(corpus, CORPORA)}")
    told = CORPORA[corpus](languages)
    if told.made is not None:
        if dir or source != "auto":
            raise ValueError(
                f"data.dir={dir or ''!r} and data.source={source!r}: {corpus} is made by jaxkd "
                "itself, and comes from nowhere else. Leave both as they are."
            )
        name, made = told.made()
        found = ResolvedDataset(name, MADE, False, made)
    else:
        found = find(told.source, dir, source)
    for split in SPLITS:
        if not found.content.get(split):
            raise ValueError(f"the {split} split of {found.name} ({found.origin}) has no pairs.")
    digest = hashlib.sha256(json.dumps(sorted(found.content.items())).encode()).hexdigest()[:16]
    content = {k: [(a, list(b)) for a, b in pairs] for k, pairs in found.content.items()}
    builder = ParallelText(content=content, data_dir=cache / "tfds" / f"pairs-{digest}")
    builder.prepare()
    pairs = {split: _Pairs(builder.as_data_source(split=split)) for split in SPLITS}
    return told.title, found, pairs, digest


class _Pairs(Sequence):
    """A data source's examples as (source, targets)."""

    def __init__(self, examples: Sequence):
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < len(self):
            raise IndexError(index)
        example = self._examples[index]
        return example["source"].decode(), tuple(each.decode() for each in example["targets"])


def _read_folder(folder: pathlib.Path, *, languages: tuple[str, str]) -> tuple[str, Content]:
    content: dict[str, list[Pair]] = {}
    for split, names in _NAMES.items():
        name = next((n for n in names if list(folder.glob(f"{n}.*"))), None)
        if name is None:
            raise lacking(folder, f"{' or '.join(names)} with the endings {', '.join(languages)}")
        files = [_file(folder, name, language) for language in languages]
        sources, targets = (_lines(file) for file in files)
        if len(sources) != len(targets):
            raise ValueError(
                f"{files[0]} has {len(sources)} lines, {files[1].name} has {len(targets)}: line i "
                "of one must be the translation of line i of the other. Fetch both again."
            )
        content[split] = [(a, (b,)) for a, b in zip(sources, targets, strict=True)]
    named = "Multi30k" if (folder / "test_2016_flickr.en.gz").is_file() else folder.name
    return f"{named} {'-'.join(languages)}", content


def _file(folder: pathlib.Path, name: str, language: str) -> pathlib.Path:
    for file in (folder / f"{name}.{language}", folder / f"{name}.{language}.gz"):
        if file.is_file():
            return file
    there = {file.name.removeprefix(f"{name}.").removesuffix(".gz") for file in
             folder.glob(f"{name}.*")}  # fmt: skip
    raise FileNotFoundError(
        f"{folder} has no {name}.{language} (or .gz). {did_you_mean(language, sorted(there))} Set "
        "config.data.languages."
    )


def _lines(file: pathlib.Path) -> list[str]:
    lines = [line.strip() for line in unpacked(file).removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, 1):
        if not line:
            raise ValueError(
                f"{file}, line {number} is empty: there is nothing to translate. Take the line out "
                "of both languages' files."
            )
    return lines


def _read_hub(*, languages: tuple[str, str]) -> tuple[str, Content]:
    names = [f"{name}.jsonl" for name in ("train", "val", "test")]
    content: dict[str, list[Pair]] = {}
    for split, path in zip(SPLITS, hub_files(_HUB, names, kind="dataset"), strict=True):
        rows: list[dict[str, Any]] = [
            json.loads(line) for line in path.read_text().strip().split("\n")
        ]
        unknown = [language for language in languages if language not in rows[0]]
        if unknown:
            raise ValueError(
                f"{_HUB} has no language {unknown[0]!r}. {did_you_mean(unknown[0], rows[0])}"
            )
        given, wanted = languages
        content[split] = [(row[given].strip(), (row[wanted].strip(),)) for row in rows]
    return f"Multi30k {'-'.join(languages)}", content


def reversed_prose() -> tuple[str, Content]:
    """Sentences of Python's prose, to be written with their words in reverse order."""
    content: dict[str, list[Pair]] = {}
    documents = embedded_documents()
    for split in SPLITS:
        pairs: dict[str, Pair] = {}
        for text in documents[split]:
            for sentence in re.split(r"(?<=[.!?])\s+|\n", text):
                words = re.findall(r"[a-z']+", sentence.lower())
                if 3 <= len(words) <= 10:
                    pairs[" ".join(words)] = (" ".join(words), (" ".join(reversed(words)),))
        content[split] = sorted(
            pairs.values(), key=lambda p: hashlib.sha256(p[0].encode()).digest()
        )
    return "embedded Python prose, reversed", content
