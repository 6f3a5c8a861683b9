"""What an experiment is: data, named stages in their order, seeds, and what its report shows."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, Protocol

from jaxkd.core.names import did_you_mean
from jaxkd.data.rows.labelled import Labelled
from jaxkd.data.rows.pairs import Pairs
from jaxkd.data.rows.text import Rows, Text
from jaxkd.runs.display import Display


@dataclasses.dataclass
class Workspace:
    """Where a stage works and what it is given."""

    name: str
    folder: pathlib.Path  # its own
    seed: int
    rows: Rows | None  # none: the experiment reads no text
    stages: dict[str, Any]
    display: Display
    tensorboard: pathlib.Path | None = None
    stopping: Callable[[], bool] = lambda: False
    profile: pathlib.Path | None = None  # where a trace of some steps is to go

    def stage_folder(self, stage: str) -> pathlib.Path:
        """Another stage's folder."""
        return self.folder.parent / stage


class Stage(Protocol):
    """A dataclass whose fields are its configuration."""

    def inputs(self) -> tuple[str, ...]:
        """Names of the earlier stages it reads."""

    def check(self) -> None:
        """Raise ValueError for what is wrong without looking at any data."""

    def run(self, workspace: Workspace) -> dict[str, Any]:
        """Do it, in `workspace.folder`; return the numbers for done.json."""

    # Optional: `reads_text = True` refuses an experiment without data; `on_all_hosts = True` runs
    # it on each of several hosts; `depends()` returns what beside settings, seed, data and inputs
    # the result hangs on (files outside the run); `check_among(earlier stages, data)` raises
    # ValueError for what does not go together.


@dataclasses.dataclass
class Curve:
    """A plot of one metric over steps, several models in it."""

    title: str
    models: tuple[str, ...]
    split: str = "train"
    metric: str = "loss"
    unigram: bool = False  # draw the loss of a model that ignores context


@dataclasses.dataclass
class Comparison:
    """Two models whose difference is reported seed by seed."""

    title: str
    model: str
    baseline: str
    split: str = "validation"
    metric: str = "loss"


@dataclasses.dataclass
class Reference:
    """A number of the original, to stand beside ours."""

    what: str
    original: float
    model: str
    split: str = "validation"
    metric: str = "loss"
    # Of the training's curve: last, or mean. None: the finished model's evaluation, or of the split
    # "train" the last.
    reduce: str | None = None


@dataclasses.dataclass
class Report:
    """What the report shows beside the table of all evaluated models."""

    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    references: tuple[Reference, ...] = ()
    reference_source: str = ""
    split: str = "validation"  # whose results stand first


@dataclasses.dataclass
class Experiment:
    """A sentence made of stages."""

    title: str
    data: Text | Labelled | Pairs | None  # none: its stages read no text
    stages: dict[str, Any]
    seeds: tuple[int, ...] = (0,)
    report: Report = dataclasses.field(default_factory=Report)

    def check(self) -> None:
        """Raise ValueError for a stage that names no earlier one, or whose own check fails."""
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds={self.seeds}: at least one, and each only once.")
        earlier: list[str] = []
        for name, stage in self.stages.items():
            for wanted in stage.inputs():
                if wanted not in earlier:
                    late = wanted in self.stages
                    raise ValueError(
                        f"stage {name!r} reads {wanted!r}, which "
                        f"{'comes later' if late else 'is no stage'}. "
                        f"{did_you_mean(wanted, earlier)}"
                    )
            if self.data is None and getattr(stage, "reads_text", False):
                raise ValueError(
                    f"stage {name!r} ({type(stage).__name__}) reads text, and the experiment has "
                    "none: give it data."
                )
            try:
                stage.check()
                if hasattr(stage, "check_among"):
                    stage.check_among({n: self.stages[n] for n in earlier}, self.data)
            except ValueError as error:
                raise ValueError(f"stage {name!r}: {error}") from error
            earlier.append(name)
