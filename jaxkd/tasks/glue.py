"""GLUE's nine tasks, each with its official metrics.

Source: Wang et al. (2019), arXiv:1804.07461, table 1.
"""

import dataclasses
from collections.abc import Sequence

from jaxkd.core.names import did_you_mean
from jaxkd.metrics.classes import ACCURACY, F1, MCC, PEARSON, SPEARMAN
from jaxkd.metrics.metric import Metric
from jaxkd.metrics.states import Confusion
from jaxkd.tasks.task import Task, classification, regression

METRICS: dict[str, tuple[Metric, ...]] = {  # the first is the primary one
    "CoLA": (MCC,),
    "MNLI": (ACCURACY,),
    "MRPC": (F1, ACCURACY),
    "QNLI": (ACCURACY,),
    "QQP": (F1, ACCURACY),
    "RTE": (ACCURACY,),
    "SST-2": (ACCURACY,),
    "STS-B": (PEARSON, SPEARMAN),
    "WNLI": (ACCURACY,),
}
REGRESSION = ("STS-B",)
POSITIVE = ("1", "equivalent", "duplicate")  # names of the class whose F1 is reported


def glue(name: str, labels: Sequence[str] = ()) -> Task:
    """The task of that name.

    Args:
      labels: names of the classes in the order of their numbers; none for STS-B.
    Raises:
      ValueError: for another name; for classes without names; for a task with F1 none of whose
        two classes is called one of POSITIVE.

    >>> glue("CoLA", ("0", "1")).primary, [m.name for m in glue("STS-B").metrics]
    ('mcc', ['loss', 'pearson', 'spearman', 'teacher_mse'])
    """
    if name not in METRICS:
        raise ValueError(f"no GLUE task {name!r}. {did_you_mean(name, METRICS)}")
    if name in REGRESSION:
        return regression(METRICS[name], name)
    if len(labels) < 2:
        raise ValueError(f"GLUE {name}: labels={tuple(labels)}; the names of at least two classes.")
    metrics = METRICS[name]
    if F1 in metrics:
        positive = [i for i, label in enumerate(labels) if label in POSITIVE]
        if len(labels) != 2 or len(positive) != 1:
            raise ValueError(
                f"GLUE {name}: labels={tuple(labels)}; F1 is that of the class called one of "
                f"{POSITIVE}, of two."
            )
        metrics = (_f1(positive[0]), *metrics[1:])
    return classification(labels, metrics, name)


def _f1(positive: int) -> Metric:
    return dataclasses.replace(F1, finish=lambda state: Confusion.f1(state, positive))
