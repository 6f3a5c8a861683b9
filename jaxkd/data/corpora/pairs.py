"""The known corpora of pairs, a source and its targets, as rows of a table."""

import functools
import hashlib
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxkd.core.names import did_you_mean
from jaxkd.data.corpora import alfred, gsm8k, scan, summaries
from jaxkd.data.corpora.noisy_letters import noisy_letters
from jaxkd.data.sources.embedded import embedded_documents
from jaxkd.data.sources.find import Corpus, Splits
from jaxkd.data.sources.find_files import missing_files
from jaxkd.data.sources.records import Records, a_text, json_lines, lines

SPLITS = ("train", "validation", "test")
# ours -> what its files may be called, in the order they are looked for
_NAMES = {
    "train": ("train",),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "test_2016_flickr"),
}

Pair = tuple[str, tuple[str, ...]]  # a source, and one target or several that are as good


def _multi30k(languages: tuple[str, str]) -> Corpus:
    """Lines of two languages, in files `train.en`, `train.de`, `val.en` and so on, or gzipped."""
    source, target = languages

    def read_hub(files: list[pathlib.Path]) -> Splits:
        def pair(row: Mapping[str, Any]) -> Pair:
            unknown = [language for language in languages if language not in row]
            if unknown:
                raise ValueError(
                    f"there is no language {unknown[0]!r}. {did_you_mean(unknown[0], row)} Set "
                    "config.data.languages."
                )
            return a_text(row[source], source), (a_text(row[target], target),)

        return {
            split: json_lines(file).map(pair, f"multi30k {source} {target}")
            for split, file in zip(SPLITS, files, strict=True)
        }

    return Corpus(
        name=f"Multi30k {source}-{target}",
        inside="multi30k",
        files=f"train, val and test, each as .{source} and .{target} (or with .gz)",
        read_folder=functools.partial(_parallel_folder, languages=languages),
        repository="bentrevett/multi30k",
        hub_files=tuple(f"{name}.jsonl" for name in ("train", "val", "test")),
        read_hub=read_hub,
        embedded=reversed_prose,
        known=frozenset(
            {
                "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
                "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
            }
        ),
    )


def _corpus(
    name: str,
    inside: str,
    files: str,
    read: Callable[..., Splits],
    *,
    check: Callable[[Sequence[str]], None] = lambda languages: None,
    **more: Any,
) -> Callable[[tuple[str, str]], Corpus]:
    """A corpus that is read from its own files, which the hub may have too."""

    def corpus(languages: tuple[str, str]) -> Corpus:
        check(languages)
        from_folder = functools.partial(read, languages=languages)
        return Corpus(name, inside, files, from_folder, embedded=reversed_prose, **more)

    return corpus


CORPORA: dict[str, Callable[[tuple[str, str]], Corpus]] = {
    "multi30k": _multi30k,
    "noisy_letters": lambda languages: Corpus(
        "noisy letters", "", "", lambda folder: {}, embedded=noisy_letters, made=True
    ),
    "alfred": _corpus(
        "ALFRED", "alfred", alfred.FILES, alfred.read_folder, check=alfred.check,
        repository="github.com/askforalfred/alfred", known=alfred.KNOWN,
    ),
    "scan": _corpus(
        "SCAN", "scan", "simple_split, length_split and add_prim_split", scan.read_folder,
        check=scan.check, repository="github.com/brendenlake/SCAN", known=scan.KNOWN,
    ),
    "scitldr": _corpus(
        "SciTLDR", "scitldr", "train.jsonl, dev.jsonl and test.jsonl (or with .gz)",
        summaries.read_scitldr, repository="github.com/allenai/scitldr",
        known=summaries.SCITLDR_KNOWN,
    ),
    "tldr": _corpus(
        "TL;DR", "tldr", "train.jsonl, validation.jsonl and test.jsonl (or with .gz)",
        summaries.read_tldr, repository=summaries.TLDR_REPOSITORY,
        hub_files=summaries.TLDR_HUB_FILES, read_hub=summaries.read_tldr_hub,
    ),
    "gsm8k": _corpus(
        "GSM8K", "gsm8k", "train.jsonl and test.jsonl (or with .gz)", gsm8k.read_folder,
        repository=gsm8k.REPOSITORY, hub_files=gsm8k.HUB_FILES, read_hub=gsm8k.read_hub,
        known=gsm8k.KNOWN,
    ),
}  # fmt: skip


def _parallel_folder(folder: pathlib.Path, languages: tuple[str, str]) -> Splits:
    splits = {}
    for split, names in _NAMES.items():
        name = next((n for n in names if list(folder.glob(f"{n}.*"))), None)
        if name is None:
            needed = f"{' or '.join(names)} with the endings {', '.join(languages)}"
            raise missing_files(folder, needed)
        splits[split] = parallel(*(_file(folder, name, language) for language in languages))
    return splits


def parallel(source: pathlib.Path, target: pathlib.Path) -> Records:
    """Line i of one file with line i of the other.

    Raises (when it is iterated over):
      ValueError: for files of unequal length, or an empty line; names file and line.
    """

    def read() -> Any:
        sides, count = (lines(source), lines(target)), 0
        while True:
            both = [next(side, None) for side in sides]
            if both == [None, None]:
                break
            if None in both:
                totals = [count + (each is not None) + sum(1 for _ in side) for each, side in
                          zip(both, sides, strict=True)]  # fmt: skip
                raise ValueError(
                    f"{source} has {totals[0]} lines, {target.name} has {totals[1]}: line i of one "
                    "must be the translation of line i of the other. Fetch both again."
                )
            count += 1
            texts = [line.strip() for _, line in both]
            for file, text in zip((source, target), texts, strict=True):
                if not text:
                    raise ValueError(
                        f"{file}, line {count} is empty: there is nothing to translate. Take the "
                        "line out of both languages' files."
                    )
            yield f"{source}, line {count}", (texts[0], (texts[1],))
        if not count:
            raise ValueError(f"{source} has no lines. Fetch it again.")

    return Records(read, (source, target), "parallel lines")


def _file(folder: pathlib.Path, name: str, language: str) -> pathlib.Path:
    for file in (folder / f"{name}.{language}", folder / f"{name}.{language}.gz"):
        if file.is_file():
            return file
    present = {
        file.name.removeprefix(f"{name}.").removesuffix(".gz") for file in folder.glob(f"{name}.*")
    }
    raise FileNotFoundError(
        f"{folder} has no {name}.{language} (or .gz). {did_you_mean(language, sorted(present))} "
        "Set config.data.languages."
    )


def reversed_prose() -> tuple[str, Mapping[str, Sequence[Pair]]]:
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
