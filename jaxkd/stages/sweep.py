"""Train one model with several learning rates and batch sizes, and keep the best."""

import dataclasses
import math
from typing import Any, ClassVar

from jaxkd.core.ranges import field
from jaxkd.data.rows.base import Rows
from jaxkd.models import families
from jaxkd.runs.experiment import Workspace
from jaxkd.stages import tokenizer
from jaxkd.stages.cost import Cost, of_all
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.models import load_model, save_model
from jaxkd.stages.train import Train


@dataclasses.dataclass
class Sweep:
    """Each training is a sub-run: it is skipped, resumed and reported as any stage.

    The best is that of the best value of the task's primary metric on the validation split. The
    split on which a model was chosen flatters it; the report says so.
    """

    train: Train
    learning_rates: tuple[float, ...] = field((3e-5, 1e-4, 3e-4), above=0)
    batch_sizes: tuple[int, ...] = field((16, 32), at_least=1)
    evaluate_batch: int = field(64, at_least=1)

    reads_text: ClassVar[bool] = True

    @property
    def teacher(self) -> str:
        return self.train.teacher

    def steps_over(self, rows: int) -> int:
        """Optimiser updates of all trainings on that many rows."""
        each = (dataclasses.replace(self.train, batch_size=size) for size in self.batch_sizes)
        return len(self.learning_rates) * sum(train.steps_over(rows) for train in each)

    def inputs(self) -> tuple[str, ...]:
        return self.train.inputs()

    def check(self) -> None:
        self.train.check()
        for name in ("learning_rates", "batch_sizes"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} is {values}; at least one, and each only once.")

    def check_among(self, earlier: dict[str, Any], data: Any) -> None:
        self.train.check_among(earlier, data)

    def plan(self, configs: dict[str, Any], rows: Rows | None) -> families.Config | None:
        """The config of the model this stage will leave."""
        return self.train.plan(configs, rows)

    def cost(
        self, configs: dict[str, Any], rows: Rows, task: Any, seed: int, free: int | None = None
    ) -> Cost | None:
        """What all trainings will need; None if their models are not known yet."""
        each = (dataclasses.replace(self.train, batch_size=size) for size in self.batch_sizes)
        costs = [train.cost(configs, rows, task, seed, free) for train in each]
        known = [cost for cost in costs if cost is not None]
        return of_all(known, len(self.learning_rates)) if len(known) == len(costs) else None

    def check_config(self, configs: dict[str, Any], rows: Rows) -> None:
        """Raise ValueError if models, terms and data do not fit."""
        self.train.check_config(configs, rows)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        tried: dict[str, dict[str, Any]] = {}
        for rate in self.learning_rates:
            for batch in self.batch_sizes:
                name = f"rate_{rate:g}_batch_{batch}"
                optimiser = dataclasses.replace(self.train.optimiser, learning_rate=rate)
                stage = dataclasses.replace(self.train, optimiser=optimiser, batch_size=batch)
                workspace.run(name, stage)
                evaluate = Evaluate(models=(name,), batch_size=self.evaluate_batch)
                result = workspace.run(f"{name}_evaluated", evaluate)
                numbers = result["models"][name]["splits"]["validation"]
                tried[name] = {"learning_rate": rate, "batch_size": batch} | {
                    metric.name: numbers[metric.name]
                    for metric in workspace.task.metrics
                    if metric.name in numbers
                }
        metric = workspace.task.metric(workspace.task.primary)
        sign = 1 if metric.higher_is_better else -1
        finite = [name for name in tried if math.isfinite(tried[name][metric.name])]
        if not finite:
            raise ValueError(
                f"{workspace.name}: {metric.title} is not finite after any training: "
                f"{tried}. Try lower learning_rates."
            )
        best = max(finite, key=lambda name: sign * tried[name][metric.name])
        workspace.display.say(
            f"{workspace.name}: best of {len(tried)} is {best}, {metric.title} "
            f"{tried[best][metric.name]:.4f} (chosen on the validation split)"
        )
        folder = workspace.folder / best
        config, params = load_model(folder, workspace.display.say, on_host=True)
        tokenizer.keep(folder, workspace.folder)
        note = f"best of {len(tried)} ({best}), chosen on the validation split by {metric.title}"
        return {"best": best, "tried": tried, "note": note} | save_model(workspace, config, params)
