"""A model's predictions over a split: one evaluator for all tasks, made of their metrics."""

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from jaxkd import losses
from jaxkd.core.batch import Batch
from jaxkd.core.mean import Mean
from jaxkd.core.outputs import Outputs
from jaxkd.distil.teacher import teacher_outputs
from jaxkd.metrics.metric import Metric, PerTarget
from jaxkd.metrics.states import on_host
from jaxkd.models.model import Model, Params, forward
from jaxkd.models.quantised import dequantise
from jaxkd.runtime import hosts

Evaluate = Callable[[Params, Params | None, Iterable[Batch]], dict[str, float]]
PENDING = 8  # batches that are dispatched before the oldest is read back


def make_evaluate(
    model: Model, teacher: Model | None, metrics: Sequence[Metric], *, chunk: int = 0
) -> Evaluate:
    """A function (params, teacher's params, batches) -> {metric: number} over all of them.

    Neither dropout nor LayerDrop is on. Metrics that need a teacher are left out where there is
    none. Parameters may be quantised (distil/teacher.py). States of batches are merged on the host
    in float64.

    Args:
      chunk: positions whose logits exist at once, for metrics that are a mean over targets; 0:
        all. Other metrics get whole logits.
    Raises:
      ValueError: by the function, if there are no batches; for two metrics of one name.
    """
    chosen = {m.name: m for m in metrics if teacher is not None or not m.of_teacher}
    if len({m.name for m in metrics}) < len(metrics):
        raise ValueError(f"metrics {[m.name for m in metrics]}: a name stands twice.")

    @jax.jit
    def measure(params: Params, teacher_params: Params | None, batch: Batch) -> dict[str, Any]:
        student = forward(model, dequantise(params), batch)
        teacher_result = teacher_outputs(teacher, teacher_params, batch)
        fused: dict[str, PerTarget] = {}
        if chunk and student.projection is not None:
            fused = {n: m for n, m in chosen.items() if isinstance(m, PerTarget)}
        states = {
            name: metric.state(student, teacher_result, batch)
            for name, metric in chosen.items()
            if name not in fused
        }
        return states | _fused(fused, student, teacher_result, batch, chunk)

    def evaluate(
        params: Params, teacher_params: Params | None, batches: Iterable[Batch]
    ) -> dict[str, float]:
        merged: dict[str, Any] = {}
        pending: collections.deque[Any] = collections.deque()

        def read_oldest() -> None:
            states = on_host(hosts.gathered(pending.popleft()))
            for name, state in states.items():
                merged[name] = merged[name] + state if name in merged else state

        for batch in batches:
            pending.append(measure(params, teacher_params, batch))
            if len(pending) >= PENDING:
                read_oldest()
        while pending:
            read_oldest()
        if not merged:
            raise ValueError("there are no batches to evaluate on: the split is empty.")
        return {name: float(metric.finish(merged[name])) for name, metric in chosen.items()}

    return evaluate


def make_score(
    metrics: Sequence[Metric],
) -> Callable[[Callable[[Batch], Any], Iterable[Batch]], dict[str, float]]:
    """A function (predict, batches) -> {metric: number} of logits that other programs compute.

    Made once for all that are scored, so that it is compiled once. `predict` gives a batch's logits
    at its targets. Metrics beside a teacher are left out.

    Raises:
      ValueError: by the function, if there are no batches.
    """
    chosen = [m for m in metrics if not m.of_teacher]

    @jax.jit
    def measure(logits: Any, batch: Batch) -> dict[str, Any]:
        outputs = Outputs(logits=logits, hidden=())
        return {metric.name: metric.state(outputs, None, batch) for metric in chosen}

    def score(predict: Callable[[Batch], Any], batches: Iterable[Batch]) -> dict[str, float]:
        merged: dict[str, Any] = {}
        for batch in batches:
            for name, state in on_host(measure(predict(batch), batch)).items():
                merged[name] = merged[name] + state if name in merged else state
        if not merged:
            raise ValueError("there are no batches to evaluate on: the split is empty.")
        return {metric.name: float(metric.finish(merged[metric.name])) for metric in chosen}

    return score


def _fused(
    metrics: dict[str, PerTarget], student: Any, teacher: Any, batch: Batch, chunk: int
) -> dict[str, Mean]:
    """The same metrics from the head's projection, a chunk of positions at a time."""
    if not metrics:
        return {}

    def values(logits: Any, teacher_logits: Any, labels: Any) -> dict[str, Any]:
        return {
            name: metric.values(logits, teacher_logits, labels) for name, metric in metrics.items()
        }

    totals = losses.fused(
        values,
        dict.fromkeys(metrics, 1.0),
        student.projection,
        None if teacher is None else teacher.projection,
        batch.targets,
        batch.target_mask,
        chunk=chunk,
    )[1]
    count = batch.target_mask.sum(dtype=float)
    return {name: Mean(total, count) for name, total in totals.items()}
