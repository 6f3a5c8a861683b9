"""Predictions by row: the split's order, GLUE's format, and where student and teacher differ."""

import csv
import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.evaluate import baselines, examples
from jaxkd.models import families
from jaxkd.models.model import forward
from tests.models import tiny

CONFIG = tiny.config(head="sequence_classification", labels=("no", "yes", "maybe"))
MODEL = families.build(CONFIG)
PARAMS = MODEL.init(0)
RNG = np.random.default_rng(0)
ROWS = RNG.integers(5, 60, (10, 6))
ROWS[7] = ROWS[2]  # a duplicate
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 2, 1, -1])  # the last has none


def batches(order, size=4):
    """In another order than the split's, the last batch filled up with rows of padding."""
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        tokens = np.zeros((size, ROWS.shape[1]), np.int32)
        tokens[: len(chosen)] = ROWS[chosen]
        labels = np.full(size, -1)
        labels[: len(chosen)] = LABELS[chosen]
        yield Batch(
            tokens=tokens, mask=tokens > 0, targets=np.where(labels < 0, 0, labels),
            target_mask=labels >= 0,
        )  # fmt: skip


def test_predictions_are_those_of_each_row_alone_in_the_splits_order():
    order = np.array([9, 3, 0, 2, 1, 7, 8, 5, 6, 4])
    predictions = examples.make_predict(MODEL)(PARAMS, batches(order), order)
    assert predictions.index.tolist() == list(range(10))
    for i in range(10):
        one = Batch(tokens=jnp.array(ROWS[i : i + 1]), mask=jnp.ones((1, 6), bool))
        alone = forward(MODEL, PARAMS, one).logits[0]
        np.testing.assert_allclose(predictions.scores[i], alone, atol=1e-5)
    assert predictions.labelled.tolist() == [True] * 9 + [False]
    assert predictions.labels[:9].tolist() == LABELS[:9].tolist()
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1, rtol=1e-6)


def test_rows_are_recognised_in_another_order_and_strangers_refused():
    order = RNG.permutation(10)
    index = examples.row_order(ROWS, ROWS[order])
    np.testing.assert_array_equal(ROWS[index], ROWS[order])
    assert sorted(index) == list(range(10))
    with pytest.raises(ValueError, match="not those of the split"):
        examples.row_order(ROWS, ROWS[order] + 1)


def test_a_missing_row_and_several_predictions_a_row_are_refused():
    order = np.arange(10)
    with pytest.raises(ValueError, match="10 rows have predictions, and 9 were expected"):
        examples.make_predict(MODEL)(PARAMS, batches(order), order[:9])
    tokens = families.build(dataclasses.replace(CONFIG, head="token_classification"))
    with pytest.raises(ValueError, match="one prediction a row"):
        examples.make_predict(tokens)(tokens.init(0), batches(order), order)


def made(scores, labels):
    scores = np.array(scores, float)
    return examples.Predictions(
        np.arange(len(scores)), scores, np.array(labels, float), np.array(labels) >= 0
    )


def test_files_are_gluess_format_and_open_again(tmp_path):
    predictions = made([[0.0, 2.0], [3.0, 0.0], [0.0, 0.1]], [1, 1, -1])
    examples.save(predictions, tmp_path / "predictions.m.test", ("no", "yes"))
    with open(tmp_path / "predictions.m.test.tsv") as stream:
        rows = list(csv.reader(stream, delimiter="\t"))
    assert rows == [["index", "prediction"], ["0", "yes"], ["1", "no"], ["2", "yes"]]
    again, names = examples.load(tmp_path / "predictions.m.test.npz")
    assert names == ("no", "yes")
    for field in dataclasses.fields(again):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(predictions, field.name))
    examples.save(made([[2.5], [4.25678]], [2, 4]), tmp_path / "scores")
    assert (tmp_path / "scores.tsv").read_text() == "index\tprediction\n0\t2.500\n1\t4.257\n"


def test_errors_are_rows_wrong_in_the_student_and_right_in_the_teacher():
    """Row 0 both right, 1 only the student wrong, 2 both wrong, 3 unlabelled, 4 as 1 and worse."""
    student = made([[2, 0], [2, 0], [2, 0], [2, 0], [9, 0]], [0, 1, 1, -1, 1])
    teacher = made([[2, 0], [0, 2], [2, 0], [0, 2], [0, 2]], [0, 1, 1, -1, 1])
    texts = ["a", ("b", "c"), "d", "e", "f"]
    errors = examples.student_errors(student, teacher, ("no", "yes"), texts)
    assert (errors["rows"], errors["count"]) == (4, 2)
    first, second = errors["examples"]
    assert first["index"] == 4 and first["text"] == "f"
    assert second["index"] == 1 and second["text"] == "b | c"
    assert (second["label"], second["student"], second["teacher"]) == ("yes", "no", "yes")
    assert second["student_probability"] == pytest.approx(1 / (1 + np.exp(2)))
    assert second["teacher_probability"] == pytest.approx(1 / (1 + np.exp(-2)))
    few = examples.student_errors(student, teacher, ("no", "yes"), None, most=1)
    assert few["count"] == 2 and [e["text"] for e in few["examples"]] == [None]


def test_the_majority_class_is_counted_where_labels_are():
    counts = baselines.class_counts(batches(np.arange(10)))
    assert [c.tolist() for c in counts] == [[3, 3, 3]]
    assert baselines.majority(counts) == {"majority": 3 / 9}
    assert baselines.majority([np.zeros(2, int)]) == {}
    two = Batch(
        tokens=np.ones((3, 2)), mask=np.ones((3, 2), bool),
        targets=np.array([[0, 1], [1, 1], [1, 0]]),
        target_mask=np.array([[True, True], [True, False], [True, True]]),
    )  # fmt: skip
    by_part = baselines.majority(baselines.class_counts([two]), ("a", "b"))
    assert by_part == {"majority": 3 / 5, "majority_a": 2 / 3, "majority_b": 1 / 2}
