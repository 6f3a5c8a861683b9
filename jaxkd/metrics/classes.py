"""Metrics of classifiers and of models that predict a number."""

import functools

import jax.numpy as jnp

from jaxkd.core.batch import Batch
from jaxkd.core.mean import Mean
from jaxkd.core.outputs import Outputs
from jaxkd.metrics.metric import Metric, PerTarget
from jaxkd.metrics.predictions import accuracy, agreement, first_choice
from jaxkd.metrics.states import Collected, Confusion, Moments


def _accuracy(student: object, teacher: object, labels: object, top: int = 1) -> object:
    return accuracy(student, labels, top=top)


ACCURACY = PerTarget("accuracy", "accuracy", "%", values=_accuracy)


def top_accuracy(k: int, title: str) -> PerTarget:
    """Fraction of targets among the k likeliest; ties go to the lower ids."""
    return PerTarget(f"accuracy_{k}", title, "%", values=functools.partial(_accuracy, top=k))


def part_accuracy(index: int, name: str, title: str) -> Metric:
    """Accuracy of one of several predictions a row, column `index` of the targets."""

    def read(student: Outputs, teacher: Outputs | None, batch: Batch) -> Mean:
        correct = accuracy(student.logits[:, index], batch.targets[:, index])
        return Mean.of(correct, batch.target_mask[:, index])

    return Metric(f"accuracy_{name}", title, "%", read=read)


def _confusion(student: Outputs, teacher: Outputs | None, batch: Batch) -> Confusion:
    classes = student.logits.shape[-1]
    return Confusion.of(first_choice(student.logits), batch.targets, batch.target_mask, classes)


MCC = Metric("mcc", "MCC", read=_confusion, finish=Confusion.matthews)
F1 = Metric("f1", "F1", "%", read=_confusion, finish=Confusion.f1)
MACRO_F1 = Metric("macro_f1", "macro F1", "%", read=_confusion, finish=Confusion.macro_f1)


def _moments(student: Outputs, teacher: Outputs | None, batch: Batch) -> Moments:
    return Moments.of(student.logits[..., 0], batch.targets, batch.target_mask)


def _collected(student: Outputs, teacher: Outputs | None, batch: Batch) -> Collected:
    return Collected.of(student.logits[..., 0], batch.targets, batch.target_mask)


PEARSON = Metric("pearson", "Pearson correlation", read=_moments)
SPEARMAN = Metric("spearman", "Spearman correlation", read=_collected, finish=Collected.spearman)


def _squared_error(student: object, teacher: object, labels: object) -> object:
    return jnp.square(student[..., 0].astype(jnp.float32) - labels)


def _squared_to_teacher(student: object, teacher: object, labels: object) -> object:
    return jnp.square(student[..., 0].astype(jnp.float32) - teacher[..., 0])


# "loss": what patience and the curves of training go by.
MSE = PerTarget("loss", "mean squared error", "", False, values=_squared_error)
MSE_TO_TEACHER = PerTarget(
    "teacher_mse", "mean squared difference from teacher", "", False, True,
    values=_squared_to_teacher,
)  # fmt: skip


def _agreement(student: object, teacher: object, labels: object) -> object:
    common = min(student.shape[-1], teacher.shape[-1])
    return agreement(student[..., :common], teacher[..., :common])


AGREEMENT = PerTarget("agreement", "agreement with teacher", "%", True, True, values=_agreement)
