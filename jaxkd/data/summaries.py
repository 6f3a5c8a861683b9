"""SciTLDR: abstracts of papers to read, and what they say in one sentence."""

import pathlib
from collections.abc import Mapping
from typing import Any

from jaxkd.data.lines import records

_SPLITS = {"train": "train", "validation": "dev", "test": "test"}

Pair = tuple[str, tuple[str, ...]]


def read_folder(
    folder: pathlib.Path, *, languages: tuple[str, str]
) -> tuple[str, dict[str, list[Pair]]]:
    """Its three files; dev and test may have several summaries of a paper.

    Source: Cachola et al. (2020), arXiv:2004.15011, the variant of abstracts alone.
    """
    content = {split: records(folder, f"{name}.jsonl", _pair) for split, name in _SPLITS.items()}
    return "SciTLDR", content


def _pair(row: Mapping[str, Any]) -> Pair:
    targets = tuple(text.strip() for text in row["target"] if text.strip())
    if not targets:
        raise ValueError("it has no summary")
    return " ".join(sentence.strip() for sentence in row["source"]), targets
