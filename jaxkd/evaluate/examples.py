"""Predictions of a split row by row: files of them, and rows a student gets wrong."""

import csv
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxkd.core.batch import Batch
from jaxkd.models.model import Model, Params, forward
from jaxkd.models.quantised import dequantise


@dataclasses.dataclass(frozen=True)
class Predictions:
    """One model's predictions of a split, in the order of its rows."""

    index: Int[np.ndarray, " N"]  # the row's number in the split, from 0
    scores: Float[np.ndarray, "N C"]  # logits, or one number
    labels: Float[np.ndarray, " N"]  # class numbers, or the numbers that are predicted
    labelled: Bool[np.ndarray, " N"]  # False: the row has no label

    @property
    def classes(self) -> Int[np.ndarray, " N"]:
        """The class each row gets; the lowest among equals."""
        return self.scores.argmax(1)

    @property
    def probabilities(self) -> Float[np.ndarray, "N C"]:
        """softmax of the scores."""
        exp = np.exp(self.scores - self.scores.max(1, keepdims=True))
        return exp / exp.sum(1, keepdims=True)


def make_predict(
    model: Model,
) -> Callable[[Params, Iterable[Batch], Int[np.ndarray, " N"]], Predictions]:
    """A function (params, batches, index) -> all predictions of a model with one a row.

    index: which row of the split the batches' rows are, in the order in which they come
    (`row_order`); rows that only fill a batch up, those without a token, are left out.

    Raises:
      ValueError: by the function, if there are more or fewer rows than numbers, or several
        predictions a row.
    """
    logits_of = jax.jit(lambda params, batch: forward(model, dequantise(params), batch).logits)

    def predict(
        params: Params, batches: Iterable[Batch], index: Int[np.ndarray, " N"]
    ) -> Predictions:
        scores, labels, labelled = [], [], []
        for batch in batches:
            logits = np.asarray(logits_of(params, batch), np.float32)
            if logits.ndim != 2:
                raise ValueError(
                    f"logits have the shape {logits.shape}: predictions by row are for models with "
                    "one prediction a row (classification, regression)."
                )
            rows = np.asarray(batch.mask).any(1)
            scores.append(logits[rows])
            labels.append(np.asarray(batch.targets, np.float64)[rows])
            labelled.append(np.asarray(batch.target_mask)[rows])
        parts = [np.concatenate(each) for each in (scores, labels, labelled)]
        if len(parts[0]) != len(index):
            raise ValueError(
                f"{len(parts[0])} rows have predictions, and {len(index)} were expected."
            )
        order = np.argsort(index, kind="stable")
        return Predictions(np.asarray(index)[order], *(part[order] for part in parts))

    return predict


def row_order(
    rows: Int[np.ndarray, "N columns"], ordered: Int[np.ndarray, "N columns"]
) -> Int[np.ndarray, " N"]:
    """Which of `rows` each of `ordered` is, where they are the same rows in another order.

    Equal rows are numbered in the order of `rows`.

    >>> row_order(np.array([[5], [3], [5]]), np.array([[3], [5], [5]])).tolist()
    [1, 0, 2]
    """

    def sorted_rows(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        array = np.ascontiguousarray(array)
        keys = array.view(np.dtype((np.void, array.dtype.itemsize * array.shape[1]))).ravel()
        order = np.argsort(keys, kind="stable")
        return order, keys[order]

    (first, keys), (second, other) = sorted_rows(rows), sorted_rows(ordered)
    if len(keys) != len(other) or (keys != other).any():
        raise ValueError("the evaluated rows are not those of the split.")
    index = np.empty(len(first), np.int64)
    index[second] = first
    return index


def save(predictions: Predictions, file: pathlib.Path, names: Sequence[str] = ()) -> None:
    """`file`.npz with all arrays, and `file`.tsv in the format GLUE's server takes.

    Args:
      file: without suffix.
      names: of the classes; none: the predicted number is written, with three decimals.
    """
    arrays = {f.name: getattr(predictions, f.name) for f in dataclasses.fields(predictions)}
    np.savez_compressed(file.with_name(f"{file.name}.npz"), **arrays, names=np.array(names, str))
    if names:
        words = [names[i] for i in predictions.classes]
    else:
        words = [f"{score:.3f}" for score in predictions.scores[:, 0]]
    with open(file.with_name(f"{file.name}.tsv"), "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(("index", "prediction"))
        writer.writerows(zip(predictions.index.tolist(), words, strict=True))


def load(file: pathlib.Path) -> tuple[Predictions, tuple[str, ...]]:
    """Predictions that `save` wrote, by the .npz file's path, and the names of the classes."""
    with np.load(file) as arrays:
        fields = {f.name: arrays[f.name] for f in dataclasses.fields(Predictions)}
        return Predictions(**fields), tuple(arrays["names"].tolist())


def student_errors(
    student: Predictions,
    teacher: Predictions,
    names: Sequence[str],
    texts: Sequence[str | Sequence[str]] | None = None,
    *,
    most: int = 10,
) -> dict[str, Any]:
    """Rows the student gets wrong and its teacher right, for a report.

    Those first where the two differ most about the label's probability.

    Args:
      texts: of the split's rows, each one text or several; None where they are not known.
    Returns: {"rows": labelled rows, "count": how many are such, "examples": up to `most` dicts of
      index, text, label, student, teacher, and both probabilities of the label}.
    """
    labels = student.labels.astype(int)
    wrong = student.labelled & (student.classes != labels) & (teacher.classes == labels)
    every = np.arange(len(labels))
    safe = np.where(student.labelled, labels, 0)
    of_student = student.probabilities[every, safe]
    of_teacher = teacher.probabilities[every, safe]
    chosen = np.flatnonzero(wrong)
    chosen = chosen[np.argsort(of_student[chosen] - of_teacher[chosen], kind="stable")][:most]
    examples = []
    for i in chosen.tolist():
        text = None if texts is None else texts[int(student.index[i])]
        if text is not None and not isinstance(text, str):
            text = " | ".join(text)
        examples.append(
            {
                "index": int(student.index[i]),
                "text": text,
                "label": names[labels[i]],
                "student": names[student.classes[i]],
                "teacher": names[teacher.classes[i]],
                "student_probability": float(of_student[i]),
                "teacher_probability": float(of_teacher[i]),
            }
        )
    return {"rows": int(student.labelled.sum()), "count": int(wrong.sum()), "examples": examples}
