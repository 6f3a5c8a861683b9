"""GSM8K: arithmetic in words, and answers that work it out and end in a number."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from jaxkd.data.sources.records import held_out, hub_records, records

Pair = tuple[str, tuple[str, ...]]

HUB = "openai/gsm8k"


def read_folder(
    folder: pathlib.Path, *, languages: tuple[str, str]
) -> tuple[str, dict[str, list[Pair]]]:
    """train.jsonl, of which 5% are held out for validation, and test.jsonl.

    The calculator's marks are left out.
    Source: Cobbe et al. (2021), arXiv:2110.14168.
    """
    train = records(folder, "train.jsonl", _pair)
    return _split(train, records(folder, "test.jsonl", _pair))


def read_hub() -> tuple[str, dict[str, list[Pair]]]:
    """The same from the hub."""
    files = [f"main/{split}-00000-of-00001.parquet" for split in ("train", "test")]
    return _split(*hub_records(HUB, files, _pair))


def _split(train: list[Pair], test: list[Pair]) -> tuple[str, dict[str, list[Pair]]]:
    train, validation = held_out(train, key=lambda pair: pair[0])
    return "GSM8K", {"train": train, "validation": validation, "test": test}


def _pair(row: Mapping[str, Any]) -> Pair:
    answer = without_marks(row["answer"])
    if "####" not in answer:
        raise ValueError("its answer has no ####")
    return row["question"].strip(), (answer,)


def without_marks(answer: str) -> str:
    """An answer without the calculator's marks, its lines joined by spaces.

    >>> without_marks("4/2 = <<4/2=2>>2 each.\\n#### 2")
    '4/2 = 2 each. #### 2'
    """
    return " ".join(re.sub(r"<<.*?>>", "", answer).split())
