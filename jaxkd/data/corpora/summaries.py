"""Summaries: SciTLDR's abstracts of papers in one sentence, and Reddit's posts, TL;DR."""

import pathlib
from collections.abc import Mapping
from typing import Any

from jaxkd.data.sources.find import Splits
from jaxkd.data.sources.records import a_text, find_file, json_lines, parquet

_SCITLDR = {"train": "train", "validation": "dev", "test": "test"}
SCITLDR_KNOWN = frozenset({"b222771d387be585cfdf5ae957b36757138415a352e0a3e3b23f73f87c3b1119"})
TLDR_REPOSITORY = "trl-lib/tldr"
_TLDR = ("train", "validation", "test")
TLDR_HUB_FILES = tuple(f"data/{split}-00000-of-00001.parquet" for split in _TLDR)

Pair = tuple[str, tuple[str, ...]]


def read_scitldr(folder: pathlib.Path, languages: tuple[str, str]) -> Splits:
    """Its three files; dev and test may have several summaries of a paper.

    Source: Cachola et al. (2020), arXiv:2004.15011, the variant of abstracts alone.
    """
    return {
        split: json_lines(find_file(folder, f"{name}.jsonl")).map(_abstract, "scitldr")
        for split, name in _SCITLDR.items()
    }


def _abstract(row: Mapping[str, Any]) -> Pair:
    targets = tuple(a_text(text, "target") for text in row["target"] if text.strip())
    if not targets:
        raise ValueError("it has no summary.")
    source = " ".join(sentence.strip() for sentence in row["source"])
    return a_text(source, "source"), targets


def read_tldr(folder: pathlib.Path, languages: tuple[str, str]) -> Splits:
    """train, validation and test.jsonl, each line with a `prompt` and a `completion`.

    Source: Völske et al. (2017); Stiennon et al. (2020), arXiv:2009.01325, whose prompts end in
    the words TL;DR: they are left out here.
    """
    return {
        split: json_lines(find_file(folder, f"{split}.jsonl")).map(_post, "tldr") for split in _TLDR
    }


def read_tldr_hub(files: list[pathlib.Path]) -> Splits:
    """The same from the hub."""
    return {
        split: parquet(file).map(_post, "tldr") for split, file in zip(_TLDR, files, strict=True)
    }


def _post(row: Mapping[str, Any]) -> Pair:
    prompt = a_text(row["prompt"], "prompt").removesuffix("TL;DR:").rstrip()
    return a_text(prompt, "prompt"), (a_text(row["completion"], "completion"),)
