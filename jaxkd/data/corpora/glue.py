"""GLUE's nine tasks as rows of a table: their files, columns and labels.

A row of a split is (texts, label): one text or two, and the label's name, a number (STS-B), or None
where a test set has no labels.
Source: Wang et al. (2018), arXiv:1804.07461. Labels have the names of the hub's nyu-mll/glue.
"""

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd.data.sources.embedded import embedded_documents
from jaxkd.data.sources.find import Corpus, Splits
from jaxkd.data.sources.find_files import missing_files
from jaxkd.data.sources.records import (
    Records,
    a_text,
    held_out,
    json_lines,
    lines,
    parquet,
    table,
)

Row = tuple[tuple[str, ...], str | float | None]

REPOSITORY = "nyu-mll/glue"
HELD_OUT = 20  # percent of the labelled rows, where a folder has no training file


@dataclasses.dataclass(frozen=True)
class GlueTask:
    """How one task's files are read."""

    name: str  # as GLUE writes it, and as its folder is called
    hub: str  # its folder in the hub's repository
    text: tuple[str, ...]  # columns of GLUE's files
    label: str  # column of GLUE's files
    hub_text: tuple[str, ...]
    labels: tuple[str, ...] = ()  # by the hub's numbers; none: a regression
    header: tuple[str, ...] = ()  # of files without one
    dev: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"validation": "dev"})
    known: str = ""  # sha256 of train.tsv


_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_COLA = ("source", "label", "mark", "sentence")
_QQP = ("id", "qid1", "qid2", "question1", "question2", "is_duplicate")
_MNLI = {"validation": "dev_matched", "validation_mismatched": "dev_mismatched"}

TASKS = {
    task.name.lower().replace("-", ""): task
    for task in (
        GlueTask(
            "CoLA", "cola", ("sentence",), "label", ("sentence",), ("unacceptable", "acceptable"),
            _COLA, known="f320a10f92d3bce6b29152fde322a362eac39238e50d8de0c8815457fdf4fc12",
        ),
        GlueTask(
            "MNLI", "mnli", _PAIR, "gold_label", ("premise", "hypothesis"),
            ("entailment", "neutral", "contradiction"), dev=_MNLI,
        ),
        GlueTask(
            "MRPC", "mrpc", ("#1 String", "#2 String"), "Quality", _PAIR,
            ("not_equivalent", "equivalent"),
            known="122becc469405bc16f9defcb8715d2a4b7ce600e9d9381e6dc42bfdd1494c51d",
        ),
        GlueTask("QNLI", "qnli", ("question", "sentence"), "label", ("question", "sentence"),
                 _ENTAILMENT),
        GlueTask(
            "QQP", "qqp", ("question1", "question2"), "is_duplicate", ("question1", "question2"),
            ("not_duplicate", "duplicate"), _QQP,
        ),
        GlueTask(
            "RTE", "rte", _PAIR, "label", _PAIR, _ENTAILMENT,
            known="41e3a9b063433392343fad9e962cf2f58b681c78d8f71592f4186f0837246c5c",
        ),
        GlueTask(
            "SST-2", "sst2", ("sentence",), "label", ("sentence",), ("negative", "positive"),
            known="48eac26399f8456935f81dd9e3a745c1430adb6c62e233ccfe22db4a0d15d1d1",
        ),
        GlueTask(
            "STS-B", "stsb", _PAIR, "score", _PAIR,
            known="41c4d978b6162abdcada7e49a982211954cca5459c228db478af333124b257a2",
        ),
        GlueTask(
            "WNLI", "wnli", _PAIR, "label", _PAIR, ("not_entailment", "entailment"),
            known="9a88e9d54b6861cc796a088e9acf4f5f65064a9ef65ae6fa7a688b28391e5c9a",
        ),
    )
}  # fmt: skip


def corpus(task: GlueTask) -> Corpus:
    """The task's row of the table of labelled corpora."""
    files = (
        f"train.tsv and {' and '.join(f'{part}.tsv' for part in task.dev.values())} (or .tsv.gz)"
    )
    splits = ("train", *task.dev)
    hub_names = {"validation_mismatched": "validation_mismatched"} | {
        "validation": "validation_matched" if len(task.dev) > 1 else "validation"
    }
    return Corpus(
        name=task.name,
        inside=f"glue/{task.name}",
        files=files,
        read_folder=lambda folder: _read_folder(task, folder),
        repository=REPOSITORY,
        hub_files=tuple(
            f"{task.hub}/{hub_names.get(split, split)}-00000-of-00001.parquet" for split in splits
        ),
        read_hub=lambda files: {
            split: parquet(file).map(lambda row: _of_hub(task, row), f"glue {task.name}")
            for split, file in zip(splits, files, strict=True)
        },
        embedded=lambda: _returns_or_not(task),
        known=frozenset({task.known} - {""}),
        labels=task.labels,
        texts=len(task.text),
        notes=lambda splits: _notes(task, splits),
    )


def _read_folder(task: GlueTask, folder: pathlib.Path) -> Splits:
    def records(file: pathlib.Path, labelled: bool = True) -> Records:
        if ".jsonl" in file.suffixes:  # the hub's columns, names of labels
            return json_lines(file).map(lambda row: _of_hub(task, row), f"glue {task.name}")
        header = task.header if labelled and _lacks_header(task, file) else ()
        # QQP has some rows of fewer columns, in every copy; the hub's leaves them out as well.
        return table(file, header, skip_ragged=task.name == "QQP").map(
            lambda row: _of_file(task, row, labelled), f"glue {task.name} {labelled}"
        )

    splits: dict[str, Records] = {}
    for split, part in {"train": "train", **task.dev}.items():
        file = _file(folder, part)
        if file is not None:
            splits[split] = records(file)
    test = _file(folder, "test")
    if "train" not in splits:
        every = _labelled(task, folder)
        if every is None:
            raise missing_files(folder, corpus(task).files)
        key = lambda row: " ".join(row[0])  # noqa: E731
        splits["train"], splits["validation"] = held_out(records(every), key, HELD_OUT)
    elif "validation" not in splits:
        raise missing_files(folder, corpus(task).files)
    if test is not None:
        splits["test"] = records(test, labelled=False)
    return {split: splits[split] for split in ("train", *task.dev, "test") if split in splits}


def _labelled(task: GlueTask, folder: pathlib.Path) -> pathlib.Path | None:
    """A file of labelled rows that is no training file, in a folder that has none."""
    for part in (*task.dev.values(), "labelled_subset"):
        file = _file(folder, part)
        if file is not None:
            return file
    return None


def _file(folder: pathlib.Path, part: str) -> pathlib.Path | None:
    names = [f"{part}{ending}{gz}" for ending in (".tsv", ".jsonl") for gz in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _lacks_header(task: GlueTask, file: pathlib.Path) -> bool:
    """Of tasks whose files may have none (CoLA, divisions of QQP): the first line tells."""
    if not task.header:
        return False
    first = next((line for _, line in lines(file)), "")
    return task.text[0] not in first.rstrip("\r\n").split("\t")


def _of_file(task: GlueTask, row: Mapping[str, str], labelled: bool) -> Row:
    texts = tuple(a_text(row[name], name) for name in task.text)
    return texts, _label(task, row[task.label]) if labelled else None


def _of_hub(task: GlueTask, row: Mapping[str, Any]) -> Row:
    texts = tuple(a_text(row[name], name) for name in task.hub_text)
    return texts, _label(task, row["label"])


def _label(task: GlueTask, value: Any) -> str | float | None:
    """The name of a label that a file has by name or number; the hub writes -1 for none."""
    if not task.labels:
        return None if value is None or float(value) < 0 else float(value)
    if value in (-1, "-1", None, "-", ""):
        raise ValueError(f"the label is {value!r}: the row has none. Leave it out.")
    if value in task.labels:
        return str(value)
    if str(value).isdigit() and int(value) < len(task.labels):
        return task.labels[int(value)]
    raise ValueError(
        f"the label is {value!r}; {task.name} has {', '.join(task.labels)} (0, 1, ..)."
    )


def _notes(task: GlueTask, splits: Splits) -> tuple[str, ...]:
    """Whether the task is whole, or which part of it was read."""
    first = splits["train"].files[0].name.split(".")[0]
    if first != "train":
        return (
            f"{task.name}: a subset. Its training file is not there: {100 - HELD_OUT}% of {first} "
            f"are trained on and {HELD_OUT}% validate, by a hash of their texts.",
        )
    absent = [name for split, name in task.dev.items() if split not in splits]
    return tuple(f"{task.name}: {name} is not there." for name in absent)


def _returns_or_not(task: GlueTask) -> tuple[str, Mapping[str, Sequence[Row]]]:
    """Sentences of Python's prose: does one speak of what is returned or raised, or not?

    The word itself is cut out, so that the rest must show it; as many of either kind.
    A task of two texts has a sentence's two halves, one of numbers has 0 and 1.
    """
    content = {}
    documents = embedded_documents()
    splits = {"train": "train", "validation": "validation", "validation_mismatched": "test"}
    for split in ("train", *task.dev):
        kinds: tuple[list[str], list[str]] = ([], [])
        for text in documents[splits[split]]:
            for sentence in re.split(r"(?<=[.!?])\s+|\n", text):
                words = re.findall(r"[A-Za-z']+", sentence.lower())
                if 5 <= len(words) <= 20:
                    others = [word for word in words if not re.match(r"(return|rais)", word)]
                    kinds[len(others) < len(words)].append(" ".join(others))
        count = min(map(len, kinds))
        names = task.labels[:2] or (0.0, 1.0)
        rows = [(sentence, names[label]) for label in (0, 1) for sentence in kinds[label][:count]]
        rows.sort(key=lambda row: hashlib.sha256(row[0].encode()).digest())
        content[split] = [(_halves(text, len(task.text)), label) for text, label in rows]
    return "embedded Python prose", content


def _halves(text: str, parts: int) -> tuple[str, ...]:
    words = text.split()
    middle = len(words) // 2
    return (text,) if parts == 1 else (" ".join(words[:middle]), " ".join(words[middle:]))


CORPORA = {name: corpus(task) for name, task in TASKS.items()}
