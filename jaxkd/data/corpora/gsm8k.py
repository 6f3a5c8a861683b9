"""GSM8K: arithmetic in words, and answers that work it out and end in a number."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from jaxkd.data.sources.find import Splits
from jaxkd.data.sources.records import Records, a_text, find_file, held_out, json_lines, parquet

Pair = tuple[str, tuple[str, ...]]

REPOSITORY = "openai/gsm8k"
HUB_FILES = ("main/train-00000-of-00001.parquet", "main/test-00000-of-00001.parquet")
KNOWN = frozenset({"17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465"})


def read_folder(folder: pathlib.Path, languages: tuple[str, str]) -> Splits:
    """train.jsonl, of which 5% are held out for validation, and test.jsonl.

    The calculator's annotations are left out.
    Source: Cobbe et al. (2021), arXiv:2110.14168.
    """
    return _splits(*(json_lines(find_file(folder, f"{name}.jsonl")) for name in ("train", "test")))


def read_hub(files: list[pathlib.Path]) -> Splits:
    """The same from the hub."""
    return _splits(*map(parquet, files))


def _splits(train: Records, test: Records) -> Splits:
    train, validation = held_out(train.map(_pair, "gsm8k"), key=lambda pair: pair[0])
    return {"train": train, "validation": validation, "test": test.map(_pair, "gsm8k")}


def _pair(row: Mapping[str, Any]) -> Pair:
    answer = without_annotations(a_text(row["answer"], "answer"))
    if "####" not in answer:
        raise ValueError("its answer has no ####.")
    return a_text(row["question"], "question"), (answer,)


def without_annotations(answer: str) -> str:
    """An answer without the calculator's annotations, its lines joined by spaces.

    >>> without_annotations("4/2 = <<4/2=2>>2 each.\\n#### 2")
    '4/2 = 2 each. #### 2'
    """
    return " ".join(re.sub(r"<<.*?>>", "", answer).split())
