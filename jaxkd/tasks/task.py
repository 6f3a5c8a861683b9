"""A task as a value: head, labels, terms of the data alone, metrics, decoder."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jaxkd.core.names import did_you_mean
from jaxkd.distil import objective
from jaxkd.distil.terms import CtcLabels, HardLabels, SquaredError
from jaxkd.evaluate import measures
from jaxkd.evaluate.predictions import Evaluate, make_evaluate
from jaxkd.metrics import classes
from jaxkd.metrics.metric import Metric, describe
from jaxkd.models.model import Model

DECODERS = ("", "generate", "ctc")


@dataclasses.dataclass(frozen=True)
class Task:
    """What a model is to predict, what it learns from the data alone, and how it is measured.

    Raises:
      ValueError: for two metrics of one name, a primary metric that is none of them, no metric
        named "loss" (patience and curves go by it), or an unknown decoder.
    """

    name: str
    head: str  # of the model (models/heads.py)
    terms: Callable[[], objective.Terms]  # fresh terms, learned of the data alone
    metrics: tuple[Metric, ...]  # those of a teacher are left out where there is none
    primary: str  # the metric by which models are compared
    labels: tuple[str, ...] = ()  # names of classes in the order of their numbers
    decoder: str = ""  # "generate": targets are generated; "ctc": spelt; "": neither

    def __post_init__(self) -> None:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise ValueError(f"task {self.name!r}: metrics {names}: a name stands twice.")
        for name in (self.primary, "loss"):
            if name not in names:
                raise ValueError(
                    f"task {self.name!r} has no metric {name!r}. {did_you_mean(name, names)}"
                )
        if self.decoder not in DECODERS:
            raise ValueError(f"task {self.name!r}: decoder={self.decoder!r}; one of {DECODERS}.")

    def metric(self, name: str) -> Metric:
        """One of its metrics.

        Raises:
          ValueError: for a name that is none of them.
        """
        for metric in self.metrics:
            if metric.name == name:
                return metric
        names = [metric.name for metric in self.metrics]
        raise ValueError(f"task {self.name!r}: no metric {name!r}. {did_you_mean(name, names)}")

    def describe(self) -> dict[str, dict[str, Any]]:
        """Titles, units and directions of its metrics, for a results file."""
        return describe(self.metrics)


_OF_TEACHER = (measures.KL, classes.AGREEMENT)


def _hard_labels() -> objective.Terms:
    return {"cross_entropy": HardLabels()}


def masked_lm() -> Task:
    """Predict the masked tokens."""
    metrics = (measures.LOSS, measures.PERPLEXITY, classes.ACCURACY, *_OF_TEACHER)
    return Task("masked_lm", "masked_lm", lambda: {"mlm": HardLabels()}, metrics, "loss")


def causal_lm() -> Task:
    """Predict every next token."""
    five = classes.top_accuracy(5, "among five")
    metrics = (measures.LOSS, measures.SHORT_PERPLEXITY, classes.ACCURACY, five, *_OF_TEACHER)
    return Task("causal_lm", "causal_lm", _hard_labels, metrics, "loss")


def seq2seq() -> Task:
    """Generate a target from a source with an encoder-decoder."""
    metrics = (measures.LOSS, measures.PERPLEXITY, classes.ACCURACY, *_OF_TEACHER)
    return Task("seq2seq", "seq2seq_lm", _hard_labels, metrics, "loss", decoder="generate")


def continuation() -> Task:
    """Generate a target after a source with a decoder."""
    return dataclasses.replace(seq2seq(), name="continuation", head="causal_lm")


def ctc() -> Task:
    """Emit a label or nothing at each position; the labels in order are the target."""
    metrics = (
        measures.CTC_LOSS, measures.CTC_EXACT, measures.FRAME_KL, measures.FRAME_AGREEMENT,
    )  # fmt: skip
    terms = lambda: {"ctc": CtcLabels()}  # noqa: E731
    return Task("ctc", "masked_lm", terms, metrics, "accuracy", decoder="ctc")


def classification(
    labels: Sequence[str], metrics: Sequence[Metric] = (classes.ACCURACY,), name: str = ""
) -> Task:
    """One class a row; the first of `metrics` is the primary one."""
    return Task(
        name or "classification",
        "sequence_classification",
        _hard_labels,
        (measures.LOSS, *metrics, *_OF_TEACHER),
        metrics[0].name,
        labels=tuple(labels),
    )


def regression(
    metrics: Sequence[Metric] = (classes.PEARSON, classes.SPEARMAN), name: str = ""
) -> Task:
    """One number a row; the first of `metrics` is the primary one."""
    return Task(
        name or "regression",
        "sequence_classification",
        lambda: {"squared_error": SquaredError()},
        (classes.MSE, *metrics, classes.MSE_TO_TEACHER),
        metrics[0].name,
    )


def multi_task(labels: Sequence[str], parts: Sequence[str]) -> Task:
    """Several classes a row, one for each part; labels are "part:class"."""
    of_parts = (classes.part_accuracy(i, part, f"accuracy: {part}") for i, part in enumerate(parts))
    metrics = (measures.LOSS, classes.ACCURACY, *of_parts, *_OF_TEACHER)
    return Task("multi_task", "multi_task", _hard_labels, metrics, "accuracy", tuple(labels))


FORMS = {
    "masked_lm": lambda rows: masked_lm(),
    "causal_lm": lambda rows: causal_lm(),
    "seq2seq": lambda rows: seq2seq(),
    "continuation": lambda rows: continuation(),
    "ctc": lambda rows: ctc(),
    "classification": lambda rows: classification(rows.labels),
    "regression": lambda rows: regression(),
    "multi_task": lambda rows: multi_task(rows.labels, rows.parts),
}


def task_for(rows: Any) -> Task:
    """The task that opened data asks for, by `rows.form` and `rows.labels`.

    Raises:
      ValueError: for a form that no task has.
    """
    if rows.form not in FORMS:
        raise ValueError(
            f"{type(rows).__name__}.form is {rows.form!r}. {did_you_mean(rows.form, FORMS)}"
        )
    return FORMS[rows.form](rows)


def terms_of_data(rows: Any) -> objective.Terms:
    """What is learned of the data alone."""
    return task_for(rows).terms()


def evaluator(task: Task, model: Model, teacher: Model | None, *, chunk: int = 0) -> Evaluate:
    """How a model of this task is measured."""
    return make_evaluate(model, teacher, task.metrics, chunk=chunk)
