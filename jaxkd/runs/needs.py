"""What a run will need, before it begins: memory, disk and minutes of every training."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from jaxkd.checkpoint.layerwise import nbytes
from jaxkd.core.tree import parameter_count
from jaxkd.models import families
from jaxkd.report.markup import Table
from jaxkd.report.spread import ABSENT, number

MEGA = 1e6


@dataclasses.dataclass(frozen=True)
class Needs:
    """Of the stages of one seed."""

    table: Table
    memory: dict[str, int]  # bytes of a training on each device, by stage
    disk: int  # bytes of all stages that are still to run
    minutes: float  # of their trainings


def needs(
    stages: Mapping[str, Any],
    configs: Mapping[str, families.Config | None],
    rows: Any,
    task: Any,
    seed: int,
    done: Collection[str] = (),
) -> Needs:
    """Measure each training that is not `done` (`stage.cost`); a row for every stage.

    Args:
      configs: the planned models (runs/plan.py); a stage whose models are not known is not
        measured, and the caption names it.
    """
    lines, memory, disk, minutes, unknown, others = [], {}, 0, 0.0, [], []
    for name, stage in stages.items():
        config, cells = configs.get(name), [ABSENT] * 7
        if config is not None:
            shapes = families.build(config).shapes
            cells[0] = f"{parameter_count(shapes):,}"
            cells[4] = _megabytes(nbytes(shapes))
        if name in done:
            cells[6] = "done"
        elif hasattr(stage, "cost"):
            cost = stage.cost(configs, rows, task, seed)
            if cost is None:
                unknown.append(name)
            else:
                spent = cost.seconds * cost.steps / 60
                memory[name], minutes = cost.memory, minutes + spent
                disk += cost.disk
                cells = [
                    f"{cost.parameters:,}",
                    *map(_megabytes, (cost.weights, cost.optimiser, cost.activations, cost.disk)),
                    f"{cost.steps:,}",
                    number(spent),
                ]
        elif hasattr(stage, "steps_over"):
            others.append(name)
        elif config is not None:
            disk += nbytes(shapes)
        lines.append((name, *cells))
    caption = (
        f"Trainings take {number(minutes)} minutes and {_megabytes(disk)} MB of disk for a seed. "
        "MB of memory are of each device; activations are what the compiled step holds besides "
        "weights and optimiser, gradients too. Minutes: a few steps of the largest of 16 batches, "
        "times the steps, without evaluation. Stages that do not train are not measured."
    )
    if others:
        caption += f" Nor are: {', '.join(others)}."
    if unknown:
        caption += f" Not known before earlier stages have run: {', '.join(unknown)}."
    header = ("stage", "parameters", "weights [MB]", "optimiser [MB]", "activations [MB]",
              "disk [MB]", "steps", "minutes")  # fmt: skip
    return Needs(Table(header, tuple(lines), caption), memory, disk, minutes)


def check_memory(memory: Mapping[str, int], available: int | None) -> None:
    """Raise ValueError if a training needs more memory than there is.

    Args:
      available: bytes on each device (runtime/memory.py); None: nobody says.
    """
    for name, needed in memory.items():
        if available is not None and needed > available:
            raise ValueError(
                f"stage {name!r} needs about {needed / 1e9:.2f} GB of memory, and "
                f"{available / 1e9:.2f} GB are free. Lower config.stages.{name}.batch_size, or set "
                f"config.stages.{name}.accumulate (micro-batches) or .chunk (positions whose "
                "logits exist at once)."
            )


def _megabytes(size: float) -> str:
    return number(size / MEGA)
