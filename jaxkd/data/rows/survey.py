"""What there is to know of a data set before it is cut into tokens; read once, then remembered."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxkd.data.sources.digests import file_digest
from jaxkd.data.sources.find import ResolvedDataset


@dataclasses.dataclass(frozen=True)
class Survey:
    """Of all splits together, and of each."""

    digest: str  # of the rows' content, however they came
    rows: dict[str, int]  # split -> number of rows
    labels: tuple[str, ...] = ()  # names of the classes


def read_survey(
    dataset: ResolvedDataset,
    cache: pathlib.Path,
    look: Callable[[Mapping[str, Iterator[tuple[str, Any]]]], tuple[str, ...]] | None = None,
    version: str = "",
) -> Survey:
    """Read every row once: errors appear now, by file and line, before any work is spent.

    While the files are unchanged the result is taken from the cache and nothing is read.

    Args:
      look: is given the rows of each split, (where, row), must read all, and returns the classes.
      version: of `look`; part of what identifies the result.
    Raises:
      ValueError: for a row that cannot be read; for a split without rows.
    """
    files = {
        split: [records.how, [file_digest(file, cache) for file in records.files]]
        for split, records in dataset.splits.items()
    }
    key = hashlib.sha256(json.dumps([version, files]).encode()).hexdigest()[:24]
    kept = cache / "surveys" / f"{key}.json"
    remembered = all(records.files for records in dataset.splits.values())
    if remembered:
        try:
            stored = json.loads(kept.read_text())
            return Survey(stored["digest"], stored["rows"], tuple(stored["labels"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not there, or damaged: it is made anew
    made = _survey(dataset, look)
    if remembered:
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_name(f".{kept.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(dataclasses.asdict(made)))
        os.replace(unfinished, kept)
    return made


def _survey(dataset: ResolvedDataset, look: Any) -> Survey:
    digests = {split: hashlib.sha256() for split in dataset.splits}
    counts = dict.fromkeys(dataset.splits, 0)

    def counted(split: str) -> Iterator[tuple[str, Any]]:
        for where, row in dataset.splits[split].read():
            digests[split].update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            counts[split] += 1
            yield where, row

    labels: tuple[str, ...] = ()
    each = {split: counted(split) for split in dataset.splits}
    if look is None:
        for rows in each.values():
            for _ in rows:
                pass
    else:
        labels = look(each)
    for split, count in counts.items():
        if not count:
            raise ValueError(
                f"the {split} split of {dataset.name} ({dataset.origin}) is empty: no rows."
            )
    content = {split: digests[split].hexdigest() for split in sorted(digests)}
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    return Survey(digest, counts, labels)


def smallest_hashes(texts: Iterator[tuple[str, int]], percent: int) -> set[int]:
    """The hashes of the texts to hold out: `percent` of each class's different texts.

    Args:
      texts: (text, number of its class). A text that appears in several classes counts in the one
        it has first, so that equal texts are never on both sides.
    """
    hashes, classes = [], []
    for text, number in texts:
        hashes.append(text_hash(text))
        classes.append(number)
    unique, first = np.unique(np.array(hashes, np.uint64), return_index=True)
    own = np.array(classes)[first]
    chosen: set[int] = set()
    for number in np.unique(own):
        of_class = unique[own == number]  # ascending
        count = max(1, round(len(of_class) * percent / 100))
        chosen.update(map(int, of_class[: min(count, len(of_class) - 1)]))  # one stays at least
    return chosen


def text_hash(text: str) -> int:
    """64 bits of a text's sha256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
