"""A stage that runs stages inside it: a small search over depths."""

import dataclasses
from typing import Any, ClassVar

from jaxkd.runs.experiment import Experiment, Workspace
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.train import Train
from tests.stages import small


@dataclasses.dataclass
class Depths:
    """Train students of several depths, and return each one's loss."""

    like: str
    depths: tuple[int, ...] = (1, 2)
    steps: int = 8

    reads_text: ClassVar[bool] = True
    on_all_hosts: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return (self.like,)

    def check(self) -> None:
        """Nothing but types."""

    def run(self, workspace: Workspace) -> dict[str, Any]:
        losses = {}
        for depth in self.depths:
            start, trained, measured = f"init_{depth}", f"student_{depth}", f"evaluate_{depth}"
            workspace.run(start, Initialise(like=self.like, layers=depth))
            train = Train(
                source=start, steps=self.steps, batch_size=8, log_every=2, save_every=4,
                evaluate_every=4, evaluate_rows=8,
            )  # fmt: skip
            workspace.run(trained, train)
            numbers = workspace.run(measured, Evaluate(models=(trained,), batch_size=8))
            losses[str(depth)] = numbers["models"][trained]["splits"]["validation"]["loss"]
        return {"losses": losses}


def experiment(corpus: str, **settings: Any) -> Experiment:
    base = small.experiment(corpus, teacher_steps=2)
    stages = {name: base.stages[name] for name in ("teacher_init", "teacher")}
    stages["search"] = Depths(like="teacher", **settings)
    return Experiment(title="Nested", data=base.data, stages=stages)


def get_config(variant: str = "nested") -> Experiment:
    """For run.py; the corpus is given as --config.data.dir."""
    return experiment("")
