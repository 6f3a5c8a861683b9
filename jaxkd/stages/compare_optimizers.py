"""How soon each optimizer finds the best of a space in which every candidate was measured."""

import dataclasses
import json
from typing import Any, ClassVar

from jaxkd.core.ranges import field
from jaxkd.runs.experiment import Workspace
from jaxkd.search.optimisers import Outcome
from jaxkd.search.replay import measured_space, replay
from jaxkd.stages.models import load_model
from jaxkd.stages.search import Search
from jaxkd.stages.search_run import OPTIMIZERS, share_of_time


@dataclasses.dataclass
class CompareOptimizers:
    """Runs optimizers on what a `Search` stage measured; rewards are looked up, so regret is exact.

    Only candidates that were measured to the end count, and the best of them is the best there is.
    """

    search: str = "search"  # stage that measured the candidates; its halving is 0
    optimizers: tuple[str, ...] = field(
        ("random", "evolution", "tpe", "controller"), one_of=OPTIMIZERS
    )
    seeds: int = field(5, at_least=1)  # of each optimizer
    within: float = field(0.02, at_least=0, below=1)  # of the best reward; as good as the best
    # Candidates above this share of the teacher's time are left out; 0: none.
    max_time: float = field(0.0, at_least=0)

    reads_text: ClassVar[bool] = False

    def inputs(self) -> tuple[str, ...]:
        return (self.search,)

    def check(self) -> None:
        if not self.optimizers or len(set(self.optimizers)) < len(self.optimizers):
            raise ValueError(f"optimizers is {self.optimizers}; at least one, and each only once.")

    def check_among(self, earlier: dict[str, Any], data: Any) -> None:
        search = earlier[self.search]
        if not isinstance(search, Search):
            raise ValueError(f"search={self.search!r}: that is no Search stage.")
        if search.halving:
            raise ValueError(
                f"halving of {self.search!r} is {search.halving}: candidates that were stopped "
                f"have no reward to look up. --config.stages.{self.search}.halving=0"
            )

    def run(self, workspace: Workspace) -> dict[str, Any]:
        done = json.loads((workspace.stage_folder(self.search) / "done.json").read_text())
        search = done["metrics"]["search"]
        measured = [
            each
            for each in search["candidates"]
            if each["state"] == "complete"
            and (not self.max_time or share_of_time(each) <= self.max_time)
        ]
        if len(measured) < 2:
            raise ValueError(
                f"{len(measured)} candidates of {self.search!r} were measured to the end"
                + (f" in {self.max_time:g} of the teacher's time" if self.max_time else "")
                + "; at least 2 are needed."
            )
        outcomes = {
            each["key"]: Outcome(each["reward"], each["loss"], share_of_time(each))
            for each in measured
        }
        teacher = workspace.stages[self.search].teacher
        config, _ = load_model(workspace.stage_folder(teacher), on_host=True)
        space = measured_space(
            config,
            {name: tuple(values) for name, values in search["space"].items()},
            [each["candidate"] for each in measured],
        )
        best = max(each["reward"] for each in measured)
        improvements: dict[str, list[list[tuple[int, float]]]] = {}
        workspace.display.start(workspace.name, self.seeds * len(self.optimizers))
        for name in self.optimizers:
            runs = improvements.setdefault(name, [])
            for number in range(self.seeds):
                seed = workspace.seed * self.seeds + number
                runs.append(replay(OPTIMIZERS[name], space, outcomes, seed))
                workspace.display.step(sum(map(len, improvements.values())), {})
        workspace.display.stop()
        compared = {
            "search": self.search,
            "candidates": len(measured),
            "max_time": self.max_time,
            "best": best,
            "within": self.within,
            "near_best": sum(each["reward"] >= best - self.within * abs(best) for each in measured),
            "improvements": improvements,
        }
        return {"optimizers": compared}
