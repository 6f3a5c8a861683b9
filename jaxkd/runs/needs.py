"""What a run will need, before it begins: memory, disk and minutes of every training."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxkd.core.tree import parameter_count
from jaxkd.models import families
from jaxkd.report.markup import Table
from jaxkd.report.spread import ABSENT, number

MEGA = 1e6


@dataclasses.dataclass(frozen=True)
class Needs:
    """Of all seeds that are still to run."""

    table: Table
    memory: dict[str, int]  # bytes of a training on each device, by stage
    disk: int  # bytes of all checkpoints
    minutes: float  # of all trainings that were timed


def needs(
    stages: Mapping[str, Any],
    configs: Mapping[str, families.Config | None],
    rows: Any,
    task: Any,
    seed: int,
    runs: Mapping[str, int],
    free: int | None,
) -> Needs:
    """Measure each training that is still to run (`stage.cost`); a row for every stage.

    Args:
      configs: the planned models (runs/plan.py); a stage whose models are not known is not
        measured, and the caption names it.
      runs: by stage, for how many seeds it is still to run.
      free: bytes of memory on each device; None: it is not known. What needs more is not timed.
    """
    lines, costs, unknown, others = [], {}, [], []
    for name, stage in stages.items():
        config, cells = configs.get(name), [ABSENT] * 7
        if config is not None:
            cells[0] = f"{parameter_count(families.build(config).shapes):,}"
        cost = None
        if not runs[name]:
            cells[6] = "done"
        elif hasattr(stage, "cost"):
            cost = stage.cost(configs, rows, task, seed, free)
            unknown += [name] if cost is None else []
        elif hasattr(stage, "steps_over"):
            others.append(name)
        if cost is not None:
            costs[name] = cost
            spent = cost.seconds * cost.steps / 60
            cells = [
                f"{cost.parameters:,}",
                *map(_megabytes, (cost.weights, cost.optimiser, cost.activations, cost.disk)),
                f"{cost.steps:,}",
                ABSENT if math.isnan(spent) else number(spent),
            ]
        lines.append((name, *cells))
    kept = sum(runs[name] * cost.disk for name, cost in costs.items())
    # One more is written before the oldest goes.
    disk = kept + max((cost.checkpoint for cost in costs.values()), default=0)
    timed = [runs[n] * c.seconds * c.steps for n, c in costs.items() if not math.isnan(c.seconds)]
    minutes = sum(timed) / 60
    at_least = "at least " if unknown or others or len(timed) < len(costs) else ""
    caption = (
        f"All trainings of all seeds: {at_least}{number(minutes)} minutes, checkpoints of "
        f"{at_least}{_megabytes(disk)} MB. MB of memory are of each device and the longest rows; "
        "activations are what the compiled step holds besides weights and optimiser, gradients "
        "too. Minutes: a few steps, times the steps (at most), without compilation and "
        "evaluation. Stages that do not train are not measured."
    )
    if others:
        caption += f" Nor are {', '.join(others)}."
    if unknown:
        caption += f" Models or stored outputs are not known yet: {', '.join(unknown)}."
    header = ("stage", "parameters", "weights [MB]", "optimiser [MB]", "activations [MB]",
              "disk [MB]", "steps", "minutes")  # fmt: skip
    memory = {name: cost.memory for name, cost in costs.items()}
    return Needs(Table(header, tuple(lines), caption), memory, disk, minutes)


def check_memory(memory: Mapping[str, int], free: int | None) -> None:
    """Raise ValueError if a training needs more memory than there is.

    Args:
      free: bytes on each device (runtime/memory.py); None: it is not known.
    """
    for name, needed in memory.items():
        if free is not None and needed > free:
            raise ValueError(
                f"stage {name!r} needs about {needed / 1e9:.2f} GB of memory, and "
                f"{free / 1e9:.2f} GB are free. Lower its batch size, or raise `accumulate` for "
                f"more micro-batches (config.stages.{name}; --show lists the fields)."
            )


def _megabytes(size: float) -> str:
    return number(size / MEGA)
