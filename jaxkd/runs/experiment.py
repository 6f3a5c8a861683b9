"""What an experiment is: data, named stages in their order, seeds, and what its report shows."""

import copy
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jaxkd.core import ranges
from jaxkd.core.names import did_you_mean
from jaxkd.data.rows.base import Data, Rows
from jaxkd.runs.display import Display


@dataclasses.dataclass
class Workspace:
    """What a stage may use while it runs: its folder, seed, data, and the stages it reads."""

    name: str
    folder: pathlib.Path  # of this stage
    seed: int
    rows: Rows | None  # None: the experiment reads no text
    stages: dict[str, Any]  # all stages by name, and those this stage ran itself
    display: Display
    tensorboard: pathlib.Path | None = None
    stopping: Callable[[], bool] = lambda: False
    profile: pathlib.Path | None = None  # folder for a trace of some steps
    task: Any = None  # what the data asks of a model (jaxkd/tasks/)
    # Folders of stages that do not lie beside this one, by name (sub-runs).
    folders: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
    # Set by the runner: runs a stage inside this one.
    run_inside: "Callable[[Workspace, str, Any], dict[str, Any]] | None" = None

    def stage_folder(self, stage: str) -> pathlib.Path:
        """The folder of a stage that this one reads."""
        return self.folders.get(stage, self.folder.parent / stage)

    def run(self, name: str, stage: Any) -> dict[str, Any]:
        """Run a stage inside this one, in `folder/name`; returns its numbers.

        It is skipped, resumed, replaced and reported as any stage. It may read this stage's inputs
        and the stages this one ran before it.

        Raises:
          ValueError: for a name that is taken, or a stage that reads anything else.
        """
        if self.run_inside is None:
            raise ValueError(f"stage {self.name!r} has no runner: it was not started by a run.")
        return self.run_inside(self, name, stage)


class Stage(Protocol):
    """A dataclass whose fields are its configuration, with ranges (core/ranges.py)."""

    def inputs(self) -> tuple[str, ...]:
        """Names of the earlier stages it reads."""

    def check(self) -> None:
        """Raise ValueError for what is wrong without looking at any data."""

    def run(self, workspace: Workspace) -> dict[str, Any]:
        """Do it, in `workspace.folder`; return the numbers for done.json."""

    # Optional:
    # `reads_text = True` refuses an experiment without data.
    # `on_all_hosts = True` runs it on each of several hosts.
    # `depends()` returns what else the result depends on (files outside the run).
    # `check_among(earlier stages, data)` raises ValueError for what does not go together.
    # `plan(configs, rows)` returns the config of the model it will leave, or None; `configs` has
    #   those of earlier stages by name, None where it is not known.
    # `check_config(configs, rows)` raises ValueError once data and configs are known, before any
    #   stage runs.
    # `steps_over(rows)` returns its training steps, at most, over that many training rows.
    # `cost(configs, rows, task, seed, free)` returns what its training needs (stages/cost.py), or
    #   None; --plan shows it.


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
    """A number of the original paper, shown next to ours."""

    what: str
    original: float
    model: str
    split: str = "validation"
    metric: str = "loss"
    # Of the training curve: last or mean. None: the evaluation of the finished model, or the last
    # value of the split "train".
    reduce: str | None = None


@dataclasses.dataclass
class Report:
    """What the report shows besides the table of all evaluated models."""

    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    references: tuple[Reference, ...] = ()
    reference_source: str = ""
    split: str = "validation"  # whose results come first


@dataclasses.dataclass
class Experiment:
    """A sentence made of stages."""

    title: str
    data: Data | None  # None: its stages read no text
    stages: dict[str, Any]
    seeds: tuple[int, ...] = (0,)
    report: Report = dataclasses.field(default_factory=Report)
    task: Any = None  # None: derived from the data

    def __post_init__(self) -> None:
        # Flags change one stage's fields, so that stages must not share parts they were made of.
        self.data = copy.deepcopy(self.data)
        self.stages = {name: copy.deepcopy(stage) for name, stage in self.stages.items()}

    def resolve(self) -> None:
        """Fill in what follows from the experiment's own fields; called once flags are set.

        Experiments with fields of their own (configs/own_data.py) override it.
        """

    def check(self) -> None:
        """Raise ValueError for a stage that names no earlier one, or whose own check fails."""
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds={self.seeds}: at least one, and each only once.")
        for seed in self.seeds:
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
                raise ValueError(f"seeds={self.seeds}: whole numbers from 0 to {2**31 - 1}.")
        check_data(self.data)
        earlier: dict[str, Any] = {}
        for name, stage in self.stages.items():
            check_stage(name, stage, earlier, self.data, later=self.stages)
            earlier[name] = stage


def check_data(data: Any) -> None:
    """Raise ValueError for a folder that would not be read."""
    if data is None:
        return
    folder, origin = getattr(data, "dir", ""), getattr(data, "origin", "")
    if folder and origin in ("embedded", "hub"):
        raise ValueError(
            f"data.dir is {folder!r} and data.origin is {origin!r}, so that the folder would not "
            "be read. Set --config.data.origin=folder, choose a variant that reads a folder, or "
            "leave data.dir empty."
        )


def check_stage(
    name: str,
    stage: Any,
    earlier: Mapping[str, Any],
    data: Any,
    later: Mapping[str, Any] | None = None,
) -> None:
    """Raise ValueError, naming stage and field, for what is wrong without opening any data.

    Args:
      earlier: the stages it may read, by name.
      later: all stages, to tell one that comes later from one that does not exist.
    """
    if not dataclasses.is_dataclass(stage) or not hasattr(stage, "run"):
        raise ValueError(
            f"stage {name!r} is {stage!r}: a stage is a dataclass with inputs, check and run "
            "(jaxkd/runs/experiment.py)."
        )
    try:
        ranges.check(stage)
        for source in stage.inputs():
            if source not in earlier:
                problem = "comes later" if source in (later or {}) else "is no stage"
                raise _Unknown(
                    f"stage {name!r} reads {source!r}, which {problem}. "
                    f"{did_you_mean(source, earlier)}"
                )
        if data is None and getattr(stage, "reads_text", False):
            raise _Unknown(
                f"stage {name!r} ({type(stage).__name__}) reads text, and the experiment has none: "
                "give it data."
            )
        stage.check()
        if hasattr(stage, "check_among"):
            stage.check_among(dict(earlier), data)
    except _Unknown:
        raise
    except ValueError as error:
        raise ValueError(f"stage {name!r}: {error}") from error


class _Unknown(ValueError):
    """An error whose message names the stage already."""
