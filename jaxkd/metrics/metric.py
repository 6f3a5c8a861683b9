"""What a metric is: a name, a title, a unit, a direction, and a state that merges.

    accuracy = PerTarget("accuracy", "accuracy", "%", values=lambda s, t, y: accuracy(s, y))
    mcc = Metric("mcc", "MCC", read=..., finish=Confusion.matthews)

Training, evaluation, results files and reports take all of that from here: a new metric is one
object in a task's tuple, and edits no report.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxkd.core.batch import Batch
from jaxkd.core.mean import Mean
from jaxkd.core.outputs import Outputs

# (student's logits [*B, V], teacher's logits [*B, U] or None, labels [*B]) -> values [*B]
Values = Callable[[Any, Any, Any], Any]
# (student's outputs, teacher's outputs or None, batch) -> State
Read = Callable[[Outputs, Outputs | None, Batch], Any]


def _compute(state: Any) -> float:
    return float(state.compute())


def description(
    title: str, unit: str = "", higher_is_better: bool | None = True, columns: str = "all"
) -> dict[str, Any]:
    """What a results file says of a metric.

    Args:
      unit: "%" for fractions, which are shown times 100; "nats", "ms", or nothing.
      higher_is_better: None where neither direction is.
      columns: "all"; "report": not in the short tables; "none": no column (lines of plots).

    A description may also have "of_teacher": True where it measures closeness to a model's own
    teacher; "baseline_of": the metric whose constant answer it is; "rows": {split: how many rows it
    was measured on} where these are not all.
    """
    return {
        "title": title,
        "unit": unit,
        "higher_is_better": higher_is_better,
        "columns": columns,
    }


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number of a model's predictions over a split."""

    name: str
    title: str
    unit: str = ""  # "%": a fraction, shown times 100
    higher_is_better: bool | None = True
    of_teacher: bool = False  # whether it needs a teacher's outputs
    columns: str = "all"  # as for `description`
    read: Read | None = None  # inside a jit: one batch's state
    finish: Callable[[Any], float] = _compute  # on the host: the number of the merged state

    def state(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Any:
        """The state of one batch."""
        return self.read(student, teacher, batch)

    def describe(self) -> dict[str, Any]:
        """Title, unit and direction, for the results file."""
        about = description(self.title, self.unit, self.higher_is_better, self.columns)
        return about | ({"of_teacher": True} if self.of_teacher else {})


@dataclasses.dataclass(frozen=True)
class PerTarget(Metric):
    """A mean over the targets of `values(student's logits, teacher's logits, labels)`.

    Values are unreduced, so that they can be computed with the head, a chunk of positions at a
    time (losses/fused.py), and never need the logits of all positions at once.
    """

    values: Values | None = None

    def state(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Mean:
        logits = None if teacher is None else teacher.logits
        return Mean.of(self.values(student.logits, logits, batch.targets), batch.target_mask)


def describe(metrics: Any) -> dict[str, dict[str, Any]]:
    """The descriptions of several metrics by name."""
    return {metric.name: metric.describe() for metric in metrics}
