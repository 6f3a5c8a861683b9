"""Every form of rows has a task; GLUE's tasks have the metrics of its paper."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.core.outputs import Outputs
from jaxkd.distil import objective
from jaxkd.distil.terms import CtcLabels, HardLabels, SquaredError
from jaxkd.metrics import classes
from jaxkd.metrics.states import on_host
from jaxkd.models.heads import DECODER, ENCODER, SEQ2SEQ
from jaxkd.tasks.glue import METRICS, glue
from jaxkd.tasks.task import FORMS, Task, task_for


def rows(form):
    return types.SimpleNamespace(form=form, labels=("a:x", "a:y", "b:z"), parts=("a", "b"))


@pytest.mark.parametrize("form", FORMS)
def test_a_task_has_a_head_fresh_terms_a_loss_and_a_primary_metric(form):
    task = task_for(rows(form))
    assert task.head in ENCODER | DECODER | SEQ2SEQ
    first, second = task.terms(), task.terms()
    objective.check(first)
    assert all(first[name] is not second[name] for name in first)
    assert not task.metric("loss").higher_is_better
    assert task.metric(task.primary).name == task.primary
    assert any(metric.of_teacher for metric in task.metrics)
    assert task.describe()[task.primary]["title"]


def test_forms_learn_what_their_labels_ask_for():
    kinds = {form: type(*task_for(rows(form)).terms().values()) for form in FORMS}
    assert kinds.pop("ctc") is CtcLabels and kinds.pop("regression") is SquaredError
    assert set(kinds.values()) == {HardLabels}
    assert {form: task_for(rows(form)).decoder for form in ("seq2seq", "continuation", "ctc")} == {
        "seq2seq": "generate", "continuation": "generate", "ctc": "ctc",
    }  # fmt: skip


def test_a_form_that_no_task_has_is_refused():
    with pytest.raises(ValueError, match="'clasification'.*mean 'classification'"):
        task_for(rows("clasification"))


def test_every_part_of_several_predictions_has_its_accuracy():
    task = task_for(rows("multi_task"))
    logits = jnp.array([[[1.0, 0.0], [0.0, -1e9]], [[1.0, 0.0], [0.0, -1e9]]])
    targets, mask = jnp.array([[0, 0], [1, 0]]), jnp.array([[True, False], [True, True]])
    batch = Batch(tokens=targets, mask=mask, targets=targets, target_mask=mask)

    def number(name):
        metric = task.metric(name)
        return metric.finish(on_host(metric.state(Outputs(logits, ()), None, batch)))

    assert number("accuracy_a") == 0.5 and number("accuracy_b") == 1.0  # one of two; one of one
    assert number("accuracy") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(primary="mcc"), "no metric 'mcc'"),
        (dict(metrics=(classes.ACCURACY,)), "no metric 'loss'"),
        (dict(metrics=(classes.MSE, classes.MSE, classes.ACCURACY)), "a name stands twice"),
        (dict(decoder="beam"), "decoder='beam'"),
    ],
)
def test_a_task_that_cannot_be_is_refused(change, message):
    task = task_for(rows("classification"))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(task, **change)


def test_glue_has_nine_tasks_with_the_metrics_of_its_paper():
    """Table 1 of arXiv:1804.07461: Matthews, F1 and accuracy, Pearson and Spearman."""
    expected = {
        "CoLA": ("mcc",), "SST-2": ("accuracy",), "MRPC": ("f1", "accuracy"),
        "STS-B": ("pearson", "spearman"), "QQP": ("f1", "accuracy"), "MNLI": ("accuracy",),
        "QNLI": ("accuracy",), "RTE": ("accuracy",), "WNLI": ("accuracy",),
    }  # fmt: skip
    assert METRICS.keys() == expected.keys()
    for name, metrics in expected.items():
        task = glue(name, () if name == "STS-B" else ("0", "1"))
        names = [m.name for m in task.metrics if not m.of_teacher]
        assert tuple(names) == ("loss", *metrics) and task.primary == metrics[0]
        assert isinstance(task, Task)


@pytest.mark.parametrize(
    "name, labels, message",
    [
        ("COLA", ("0", "1"), "mean 'CoLA'"),
        ("RTE", (), "at least two classes"),
        ("MRPC", ("yes", "no"), "F1 is that of the class"),
        ("QQP", ("0", "1", "2"), "F1 is that of the class"),
    ],
)
def test_glue_says_what_is_missing(name, labels, message):
    with pytest.raises(ValueError, match=message):
        glue(name, labels)


@pytest.mark.parametrize("labels, positive", [(("0", "1"), 1), (("equivalent", "not"), 0)])
def test_f1_is_that_of_the_class_called_positive(labels, positive):
    """Three rows: predicted 1 1 0, true 1 0 0: F1 of 1 is 2/3, and so is that of 0."""
    logits = jnp.eye(2)[jnp.array([1, 1, 0, 1])]
    targets, mask = jnp.array([1, 0, 0, 0]), jnp.ones(4, bool)
    batch = Batch(tokens=targets[:, None], mask=mask[:, None], targets=targets, target_mask=mask)
    metric = glue("MRPC", labels).metric("f1")
    f1 = metric.finish(on_host(metric.state(Outputs(logits, ()), None, batch)))
    # predicted 1 1 0 1, true 1 0 0 0; of class 1: 1 right, 2 false: 2/(2+2); of class 0: 2/(2+2)
    by_hand = {1: 2 * 1 / (2 * 1 + 2 + 0), 0: 2 * 1 / (2 * 1 + 0 + 2)}
    np.testing.assert_allclose(f1, by_hand[positive])
