"""What a run will do, as a table, before it begins: stages, what they read, steps, parameters."""

import dataclasses
from typing import Any

from jaxkd.core.tree import parameter_count
from jaxkd.models import families
from jaxkd.report.markup import Table
from jaxkd.report.spread import ABSENT


def outline(experiment: Any, opened: Any = None) -> Table:
    """A row a stage; the caption says how often all of it runs and how many steps that is.

    Args:
      opened: the opened data, whose vocabulary drawn models will have.
    """
    rows, steps = [], 0
    for name, stage in experiment.stages.items():
        own = _steps(stage, opened)
        steps += own or 0
        size = parameters(stage, opened)
        rows.append(
            (
                name,
                type(stage).__name__,
                ", ".join(stage.inputs()) or ABSENT,
                ABSENT if own is None else f"{own:,}",
                ABSENT if size is None else f"{size:,}",
            )
        )
    seeds = len(experiment.seeds)
    times = f" for each of {seeds} seeds" if seeds > 1 else ""
    return Table(
        ("stage", "kind", "reads", "steps", "parameters"),
        tuple(rows),
        f"{len(rows)} stages, at most {steps:,} training steps{times}.",
    )


def _steps(stage: Any, opened: Any) -> int | None:
    """Training steps of a stage, at most; None if it does not train."""
    if hasattr(stage, "steps_over") and opened is not None:
        return stage.steps_over(len(opened.splits["train"]))
    return getattr(stage, "steps", None)


def parameters(stage: Any, opened: Any = None) -> int | None:
    """Of the model a stage draws; None where the stage reads its model from elsewhere."""
    config = getattr(stage, "model", None)
    if not dataclasses.is_dataclass(config):
        return None
    if opened is not None:
        fields = {field.name for field in dataclasses.fields(config)}
        changes = {name: value for name, value in opened.config_overrides.items() if name in fields}
        config = dataclasses.replace(config, **changes)
    return parameter_count(families.build(config).shapes)
