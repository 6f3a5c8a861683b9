"""Summaries: SciTLDR's abstracts of papers in one sentence, and Reddit's posts, TL;DR."""

import pathlib
from collections.abc import Mapping
from typing import Any

from jaxkd.data.sources.records import hub_records, records

_SPLITS = {"train": "train", "validation": "dev", "test": "test"}
TLDR_HUB = "trl-lib/tldr"

Pair = tuple[str, tuple[str, ...]]


def read_scitldr(
    folder: pathlib.Path, *, languages: tuple[str, str]
) -> tuple[str, dict[str, list[Pair]]]:
    """Its three files; dev and test may have several summaries of a paper.

    Source: Cachola et al. (2020), arXiv:2004.15011, the variant of abstracts alone.
    """
    content = {
        split: records(folder, f"{name}.jsonl", _abstract) for split, name in _SPLITS.items()
    }
    return "SciTLDR", content


def _abstract(row: Mapping[str, Any]) -> Pair:
    targets = tuple(text.strip() for text in row["target"] if text.strip())
    if not targets:
        raise ValueError("it has no summary")
    return " ".join(sentence.strip() for sentence in row["source"]), targets


def read_tldr(
    folder: pathlib.Path, *, languages: tuple[str, str]
) -> tuple[str, dict[str, list[Pair]]]:
    """train, validation and test.jsonl, each line with a `prompt` and a `completion`.

    Source: Völske et al. (2017); Stiennon et al. (2020), arXiv:2009.01325, whose prompts end in
    the words TL;DR: they are left out here.
    """
    names = ("train", "validation", "test")
    return "TL;DR", {split: records(folder, f"{split}.jsonl", _post) for split in names}


def read_tldr_hub() -> tuple[str, dict[str, list[Pair]]]:
    """The same from the hub."""
    names = ("train", "validation", "test")
    files = [f"data/{split}-00000-of-00001.parquet" for split in names]
    return "TL;DR", dict(zip(names, hub_records(TLDR_HUB, files, _post), strict=True))


def _post(row: Mapping[str, Any]) -> Pair:
    summary = row["completion"].strip()
    if not summary:
        raise ValueError("it has no summary")
    return row["prompt"].strip().removesuffix("TL;DR:").rstrip(), (summary,)
