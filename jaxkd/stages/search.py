"""Find a student's shape: candidates learn from the teacher for a short time, and are timed."""

import contextlib
import dataclasses
import math
from typing import Any, ClassVar

from jaxkd.core.ranges import field
from jaxkd.data.rows.base import Rows
from jaxkd.distil import objective
from jaxkd.distil.layer_terms import CosineHidden, HiddenStates
from jaxkd.models import families
from jaxkd.runs.experiment import Workspace
from jaxkd.search import space as spaces
from jaxkd.search.candidates import STARTS, pruned_config
from jaxkd.search.latency import Latency, Table
from jaxkd.stages import tokenizer
from jaxkd.stages.models import check_vocabulary, load_model
from jaxkd.stages.search_run import OPTIMIZERS, Run
from jaxkd.train.optimiser import AdamW


def _terms() -> dict[str, Any]:
    return {"hidden": HiddenStates(layer_map="both", solve=True)}


@dataclasses.dataclass
class Search:
    """Leaves the best candidate's shape with its first parameters, for a Train stage.

    The space: values of each dimension, the teacher's own among them; empty: a few from the
    teacher's size down. Every candidate learns the teacher's hidden states (by default each block
    two of its layers, Trivedi et al., 2023, arXiv:2303.09639) on a share of the training rows, and
    is timed beside the teacher. Several runs in their own --workdir that name one `storage` share
    the candidates.
    """

    teacher: str  # stage whose model is the teacher
    layers: tuple[int, ...] = field((), at_least=1)
    width: tuple[int, ...] = field((), at_least=1)
    heads: tuple[int, ...] = field((), at_least=1)
    feed_forward: tuple[int, ...] = field((), at_least=1)
    own_feed_forward: bool = False  # each block has one of these widths of its own
    activation: tuple[str, ...] = ()
    max_parameters: int = field(0, at_least=0)  # with the embedding; 0: any number
    # At most this share of the teacher's time; needs latency.fitted_on. 0: any time.
    max_time: float = field(0.0, at_least=0)
    start: str = field("teacher", one_of=STARTS)  # cut from the teacher, or random weights
    candidates: int = field(32, at_least=1)  # of all processes together
    hand_chosen: bool = True  # the first candidates are the teacher's shape with fewer blocks
    optimizer: str = field("tpe", one_of=OPTIMIZERS)  # proposes candidates
    # Of the reward: below 0 speed counts.
    alpha: float = field(-0.06, at_least=-10, at_most=10)
    beta: float = field(0.6, above=0)  # share of the teacher's time at which it counts as 1
    latency: Latency = dataclasses.field(default_factory=Latency)
    terms: objective.Terms = dataclasses.field(default_factory=_terms)
    share: float = field(0.3, above=0, at_most=1)  # of the training rows
    epochs: float = field(2.0, above=0)  # passes over them
    batch_size: int = field(32, at_least=1)
    optimiser: AdamW = dataclasses.field(default_factory=AdamW)  # of a candidate's parameters
    freeze: tuple[str, ...] = ()  # patterns of parameter names that do not learn
    validation_rows: int = field(256, at_least=0)  # by which the loss is measured; 0: all
    # Successive halving: after this share of the steps, and each `halving` times as many, only the
    # best 1 / halving of those that came so far go on; 0: all do.
    first_rung: float = field(0.25, above=0, below=1)
    halving: int = field(3, at_least=0)
    store_megabytes: float = field(4000.0, above=0, result=False)  # of teacher states, at most
    # Optuna's storage: a file, or a URL such as postgresql://...; empty: a file of this stage.
    storage: str = field("", result=False)
    # Minutes without a sign of life after which another process's candidate is taken over.
    patience: float = field(60.0, above=0, result=False)
    parallel: str = field("auto", one_of=("auto", "jitted", "pmapped", "sharded"), result=False)

    reads_text: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return (self.teacher,)

    def steps_over(self, rows: int) -> int:
        """Optimiser updates of all candidates on that many rows, if none is stopped."""
        return self.candidates * self._steps(max(1, math.ceil(self.share * rows)))

    def _steps(self, rows: int) -> int:
        return max(1, round(self.epochs * max(1, rows // self.batch_size)))

    def check(self) -> None:
        self.latency.check()
        self.optimiser.check()
        objective.check(self.terms)
        others = [name for name, term in self.terms.items() if not _of_hidden_states(term)]
        if others:
            raise ValueError(
                f"terms {others}: a search stores the teacher's hidden states and nothing else. "
                "Use HiddenStates or CosineHidden."
            )
        if self.halving == 1:
            raise ValueError("halving is 1, which stops nobody: 0 for none, 2 or more.")
        if self.max_time and not self.latency.fitted_on:
            raise ValueError(
                f"max_time is {self.max_time}: a limit is part of the space, before anything of a "
                "candidate is measured. Set latency.fitted_on, for example to 16."
            )

    def check_config(self, configs: dict[str, Any], rows: Rows) -> None:
        """Raise ValueError for a space without candidates; nothing is computed yet."""
        config = configs.get(self.teacher)
        if config is not None:
            self.space(config)

    def plan(self, configs: dict[str, Any], rows: Rows | None) -> families.Config | None:
        """Not known before the search."""
        return None

    def space(self, teacher: families.Config, table: Table | None = None) -> spaces.Space:
        """The candidates; errors as `Space`."""
        chosen = {name: getattr(self, name) for name in spaces.ORDER if getattr(self, name)}
        limits = []
        if self.max_parameters:
            limits.append(spaces.parameters_limit(teacher, float(self.max_parameters)))
        if table is not None and self.max_time:
            most = self.max_time * table(teacher)
            limits.append(
                spaces.Limit("milliseconds", lambda c: table(spaces.config_of(teacher, c)), most)
            )
        allows = None
        if self.start == "teacher":

            def allows(config: families.Config) -> None:
                pruned_config(families.with_layers(teacher, config.layers), config)

        choices = spaces.derived(teacher) | chosen
        if self.own_feed_forward:
            choices |= spaces.own_feed_forwards(teacher.layers, choices.pop("feed_forward"))
        return spaces.Space(teacher, choices, limits, allows)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        config, params = load_model(workspace.stage_folder(self.teacher), on_host=True)
        folder = workspace.stage_folder(self.teacher)
        check_vocabulary(self.teacher, config, tokenizer.vocabulary(folder), workspace.rows)
        run = Run(self, workspace, config, params)
        with contextlib.closing(run.study):
            return run.all()


def _of_hidden_states(term: Any) -> bool:
    return isinstance(term, CosineHidden | HiddenStates) and term.side == "last"
