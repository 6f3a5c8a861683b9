"""ALFRED's plans a step at a time: several tasks for one encoder.

A row is of one of two kinds. A goal with its instructions and the sub-goals so far: targets are the
next sub-goal and its object. A sub-goal with its instruction and the actions so far: targets are
the next manipulation and what it is done to. Moves depend on a scene and are left out.
Source: Zhang and Chai (2021), arXiv:2106.03427 (HiTUT), its language side.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int

from jaxkd.data.corpora import alfred
from jaxkd.data.rows.base import Data, Rows
from jaxkd.data.rows.labelled import NO_LABEL
from jaxkd.data.rows.labelled_rows import SHORTEST, LabelledRows
from jaxkd.data.rows.masking import Vocabulary
from jaxkd.data.rows.survey import Survey
from jaxkd.data.sources.embedded import embedded_documents
from jaxkd.data.sources.find import Corpus, ResolvedDataset, find
from jaxkd.data.tokenizers.tokenizer import Tokenizer

TASKS = ("subgoal", "object", "action", "argument")
STOP = "Stop"  # nothing comes next

# Two texts, put side by side, and the label of each task that has one.
Example = tuple[str, str, dict[str, str]]


def examples(row: Mapping[str, Any], annotations: int) -> Iterator[Example]:
    """All steps of a trajectory's plan, by the first annotations, that many."""
    highs = [high for high in row["high_pddl"] if high["action"] != "NoOp"]
    names = [" ".join([high["action"], *high["args"]]) for high in highs]
    for each in row["anns"][:annotations]:
        for i in range(len(highs) + 1):
            done = i == len(highs)
            labels = {"subgoal": STOP if done else highs[i]["action"]}
            if not done and any(highs[i]["args"]):
                labels["object"] = highs[i]["args"][-1]
            yield alfred.instruction(each, "both"), " ; ".join(names[:i]), labels
        for i, (name, step) in enumerate(zip(names, each["high_descs"], strict=False)):
            low = [a for a in row["low_actions"] if a[0] == i and not a[1].startswith(alfred.MOVES)]
            for j in range(len(low) + 1) if low else ():
                labels = {"action": low[j][1] if j < len(low) else STOP}
                if j < len(low) and len(low[j]) > 2:
                    labels["argument"] = low[j][2].split("|")[0].lower()
                before = " ; ".join(action[1] for action in low[:j])
                yield " ".join(step.split()), f"{name} : {before}", labels


@dataclasses.dataclass(frozen=True)
class StepRows(LabelledRows):
    """Rows `[CLS] text [SEP] history [SEP]`, then a column for each task: its class or -1."""

    form: ClassVar[str] = "multi_task"
    head: ClassVar[str] = "multi_task"

    @property
    def parts(self) -> tuple[str, ...]:
        """The tasks, in the order of the labels' columns."""
        return tuple(dict.fromkeys(label.split(":")[0] for label in self.classes))

    @staticmethod
    def texts_of(row: Example) -> tuple[str, ...]:
        return row[:2]


@dataclasses.dataclass
class AlfredSteps(Data):
    """Which plans, which tokenizer, how long a row."""

    tokenizer: str = "trained"  # or a hub id, or a folder
    trained_size: int = 2000  # entries of the WordPiece vocabulary, where one must be trained
    dir: str = ""  # folder with train.jsonl and valid_seen.jsonl; empty: look for one
    origin: str = "auto"  # or folder, embedded: insist on one
    length: int = 256  # tokens a row; of longer ones the text is cut, not the history
    annotations: int = 1  # people's instructions for each trajectory that are used

    def check(self) -> None:
        super().check()
        if self.length < SHORTEST or self.length & (self.length - 1) or self.annotations < 1:
            raise ValueError(
                f"data.length is {self.length} and data.annotations {self.annotations}: a power of "
                f"two, {SHORTEST} or more, and at least one."
            )

    def dataset(self, cache: pathlib.Path) -> ResolvedDataset:
        survey = find(CORPUS, self.dir, self.origin, cache)
        splits = {
            split: rows.flat_map(
                lambda row: list(examples(row, self.annotations)), f"steps {self.annotations}"
            )
            for split, rows in survey.splits.items()
        }
        return dataclasses.replace(survey, splits=splits)

    def rows_class(self) -> type[Rows]:
        return StepRows

    def look(self, dataset: ResolvedDataset) -> Any:
        def classes(splits: Mapping[str, Iterator[tuple[str, Example]]]) -> tuple[str, ...]:
            """Each task's classes, those of the training split."""
            seen: dict[str, set[str]] = {task: set() for task in TASKS}
            for split, rows in splits.items():
                for _, (_, _, labels) in rows:
                    for task, name in labels.items() if split == "train" else ():
                        seen[task].add(name)
            return tuple(f"{task}:{name}" for task in TASKS for name in sorted(seen[task]))

        return classes

    def tokenizer_texts(self, row: Example) -> Sequence[str]:
        return (f"{row[0]} {row[1]}",)

    def row_key(self, survey: Survey, tokenizer: Tokenizer) -> list[Any]:
        return [self.length, list(survey.labels)]

    def columns(self, survey: Survey) -> int:
        return self.length + len(TASKS)

    def encode(
        self, split: str, first: int, block: list[Example], tokenizer: Tokenizer, survey: Survey
    ) -> Int[np.ndarray, "rows columns"]:
        """A class that training never saw is no target."""
        number: dict[str, dict[str, int]] = {task: {} for task in TASKS}
        for label in survey.labels:
            task, _, name = label.partition(":")
            number[task][name] = len(number[task])
        rows = np.full((len(block), self.columns(survey)), tokenizer.pad, np.int32)
        encode = functools.lru_cache(None)(lambda text: tokenizer.encode([text])[0])
        for row, (text, history, labels) in zip(rows, block, strict=True):
            last = encode(history)[-(self.length - 3) :]
            start = encode(text)[: self.length - 3 - len(last)]
            ids = [tokenizer.cls, *start, tokenizer.sep, *last, tokenizer.sep]
            row[: len(ids)] = ids
            row[self.length :] = [
                number[task].get(labels.get(task, ""), NO_LABEL) for task in TASKS
            ]
        return rows

    def target_tokens(self, rows: Int[np.ndarray, "B C"], survey: Survey) -> Int[np.ndarray, "..."]:
        return rows[:, : self.length]

    def make_rows(
        self, survey: Survey, *, vocabulary_counts: Int[np.ndarray, " V"], **fields: Any
    ) -> Rows:
        vocabulary = Vocabulary.of_words(vocabulary_counts, fields["tokenizer"])
        return StepRows(
            vocabulary=vocabulary, classes=survey.labels, label_columns=len(TASKS), **fields
        )


def _stand_in() -> tuple[str, Mapping[str, Sequence[Any]]]:
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


CORPUS = Corpus(
    name="ALFRED, step by step",
    inside="alfred",
    files=alfred.FILES,
    read_folder=alfred.trajectories,
    repository="github.com/askforalfred/alfred",
    embedded=_stand_in,
    known=alfred.KNOWN,
)
