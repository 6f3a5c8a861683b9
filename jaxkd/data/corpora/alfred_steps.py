"""ALFRED's plans a step at a time: several tasks for one encoder.

A row is of one of two kinds. A goal with its instructions and the sub-goals so far: asked are the
next sub-goal and its object. A sub-goal with its instruction and the actions so far: asked are the
next manipulation and what it is done to. Moves hang on a scene and are left out.
Source: Zhang and Chai (2021), arXiv:2106.03427 (HiTUT), its language side.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxkd.data.corpora.alfred import MOVES, told
from jaxkd.data.rows.array_cache import cached_arrays
from jaxkd.data.rows.labelled import SHORTEST, LabelledRows
from jaxkd.data.rows.masking import Vocabulary, unigram_nats
from jaxkd.data.sources.embedded import embedded_documents
from jaxkd.data.sources.find import Source, find
from jaxkd.data.sources.records import held_out, records
from jaxkd.data.tokenizers.tokenizer import Tokenizer, open_tokenizer

TASKS = ("subgoal", "object", "action", "argument")
STOP = "Stop"  # nothing comes next

# What is read: two texts, put side by side; and what is asked by task.
Example = tuple[str, str, dict[str, str]]


def examples(row: Mapping[str, Any], annotations: int) -> Iterator[Example]:
    """All steps of a trajectory's plan, by the first so many of its annotations."""
    highs = [high for high in row["high_pddl"] if high["action"] != "NoOp"]
    names = [" ".join([high["action"], *high["args"]]) for high in highs]
    for each in row["anns"][:annotations]:
        for i in range(len(highs) + 1):
            done = i == len(highs)
            asked = {"subgoal": STOP if done else highs[i]["action"]}
            if not done and any(highs[i]["args"]):
                asked["object"] = highs[i]["args"][-1]
            yield told(each, "both"), " ; ".join(names[:i]), asked
        for i, (name, step) in enumerate(zip(names, each["high_descs"], strict=False)):
            low = [a for a in row["low_actions"] if a[0] == i and not a[1].startswith(MOVES)]
            for j in range(len(low) + 1) if low else ():
                asked = {"action": low[j][1] if j < len(low) else STOP}
                if j < len(low) and len(low[j]) > 2:
                    asked["argument"] = low[j][2].split("|")[0].lower()
                before = " ; ".join(action[1] for action in low[:j])
                yield " ".join(step.split()), f"{name} : {before}", asked


class TaskRows(LabelledRows):
    """Rows `[CLS] text [SEP] history [SEP]`, and behind them the class of each task or -1."""

    wanted = "ALFRED"
    form = "multi_task"
    head = "multi_task"

    @property
    def fits(self) -> dict[str, Any]:
        return super().fits | {"labels": self.classes, "pad": self.tokenizer.pad}

    @property
    def parts(self) -> tuple[str, ...]:
        """The tasks, in the order of the labels' columns."""
        return tuple(dict.fromkeys(label.split(":")[0] for label in self.classes))

    def unigram(self, split: str) -> float:
        """Mean nats a label costs a model that knows each task's shares in the training split."""
        nats = []
        for column in range(-self.asked, 0):
            seen, there = self.splits["train"][:, column], self.splits[split][:, column]
            counts = np.bincount(seen[seen >= 0], minlength=int(there.max(initial=0)) + 1)
            nats.append(unigram_nats(there[there >= 0], counts))
        return float(np.concatenate(nats).mean())


@dataclasses.dataclass
class Tasks:
    """Which plans, which tokenizer, how long a row."""

    dir: str = ""  # folder with train.jsonl and valid_seen.jsonl; empty: look for one
    source: str = "auto"  # or folder, embedded: insist on one
    tokenizer: str = "trained"  # or a hub id, or a folder
    trained_size: int = 2000  # entries of the WordPiece vocabulary, where one must be trained
    length: int = 256  # tokens a row; of longer ones the text is cut, not the history
    annotations: int = 1  # people's instructions for each trajectory that are taken
    rows: int = 0  # use only so many rows of each split; 0: all

    def open(self, cache: pathlib.Path) -> TaskRows:
        """Read and tokenise, or take it from the cache.

        Raises:
          FileNotFoundError, ValueError: as `sources.find` and `open_tokenizer` say; for a length
            that is no power of two.
        """
        if self.length < SHORTEST or self.length & (self.length - 1) or self.annotations < 1:
            raise ValueError(
                f"data.length is {self.length} and data.annotations {self.annotations}: a power of "
                f"two, {SHORTEST} or more, and at least one."
            )
        found = find(_source(), self.dir or None, self.source)
        told = json.dumps([sorted(found.content.items()), self.annotations])
        content = hashlib.sha256(told.encode()).hexdigest()[:16]
        splits = {
            split: [e for row in rows for e in examples(row, self.annotations)]
            for split, rows in found.content.items()
        }
        tokenizer = open_tokenizer(
            self.tokenizer,
            texts=lambda: [f"{a} {b}" for a, b, _ in splits["train"]],
            fingerprint=content,
            cache=cache,
            trained_size=self.trained_size,
        )
        classes = _classes(splits["train"])
        key = json.dumps(["tasks", content, tokenizer.fingerprint, self.length])
        fingerprint = hashlib.sha256(key.encode()).hexdigest()[:16]
        arrays = cached_arrays(
            cache,
            fingerprint,
            lambda: {k: _rows(v, tokenizer, classes, self.length) for k, v in splits.items()},
        )
        counts = np.bincount(
            arrays["train"][:, : self.length].ravel(), minlength=tokenizer.vocab_size
        )
        structural = sorted(tokenizer.structural_ids)
        counts[structural] = 0
        return TaskRows(
            corpus=found.name,
            origin=found.origin,
            embedded=found.embedded,
            fingerprint=f"{fingerprint}-{self.rows}",
            tokenizer=tokenizer,
            splits={name: rows[: self.rows or None] for name, rows in arrays.items()},
            vocabulary=Vocabulary.of(
                counts, special=structural, mask=tokenizer.mask, pad=tokenizer.pad
            ),
            classes=tuple(f"{task}:{name}" for task, names in classes.items() for name in names),
            asked=len(TASKS),
        )


def _classes(rows: Sequence[Example]) -> dict[str, list[str]]:
    """Each task's classes, those of the training split."""
    seen: dict[str, set[str]] = {task: set() for task in TASKS}
    for _, _, asked in rows:
        for task, name in asked.items():
            seen[task].add(name)
    return {task: sorted(names) for task, names in seen.items()}


def _rows(
    several: Sequence[Example], tokenizer: Tokenizer, classes: Mapping[str, list[str]], length: int
) -> Int[np.ndarray, "rows columns"]:
    """A class that training never saw is asked of nobody."""
    number = {task: {n: i for i, n in enumerate(names)} for task, names in classes.items()}
    rows = np.full((len(several), length + len(TASKS)), tokenizer.pad, np.int32)
    encode = functools.lru_cache(None)(lambda text: tokenizer.encode([text])[0])
    for row, (text, history, asked) in zip(rows, several, strict=True):
        last = encode(history)[-(length - 3) :]
        first = encode(text)[: length - 3 - len(last)]
        ids = [tokenizer.cls, *first, tokenizer.sep, *last, tokenizer.sep]
        row[: len(ids)] = ids
        row[length:] = [number[task].get(asked.get(task), -1) for task in TASKS]
    return rows


def _source() -> Source:
    def from_folder(folder: pathlib.Path) -> tuple[str, Any]:
        train, validation = held_out(
            records(folder, "train.jsonl", dict), key=lambda row: row["trial"]
        )
        test = records(folder, "valid_seen.jsonl", dict)
        return "ALFRED, step by step", {"train": train, "validation": validation, "test": test}

    def from_hub() -> tuple[str, Any]:
        raise FileNotFoundError("its files are not read from there")

    return Source(
        "alfred", "train.jsonl and valid_seen.jsonl (or with .gz)",
        "github.com/askforalfred/alfred", from_folder, from_hub, _stand_in,
    )  # fmt: skip


def _stand_in() -> tuple[str, Any]:
    """Sentences of Python's prose as instructions, their longest words as plans."""
    content: dict[str, list[Any]] = {}
    for split, documents in embedded_documents().items():
        rows = []
        for text in documents:
            sentences = [" ".join(s.split()) for s in re.split(r"(?<=[.!?])\s+", text)]
            steps = [s for s in sentences if 3 <= len(s.split()) <= 20][:4]
            if len(steps) < 2:
                continue
            key = [max(step.split(), key=len)[0].lower() for step in steps]
            rows.append(
                {
                    "trial": steps[0],
                    "anns": [{"task_desc": steps[0], "high_descs": steps[1:]}],
                    "high_pddl": [{"action": f"Find{k in 'aeiou'}", "args": [k]} for k in key[1:]],
                    "low_actions": [[i, "Take", f"{k}|0"] for i, k in enumerate(key[1:])],
                }
            )
        content[split] = rows
    return "embedded Python prose, its words as plans", content
