"""A candidate's short distillation: from random weights or the teacher's own, to a loss."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxkd.core.batch import Batch
from jaxkd.core.mean import Mean
from jaxkd.core.random import numpy_stream
from jaxkd.distil import objective
from jaxkd.distil.depth import influence, most_influential
from jaxkd.distil.layer_map import pairs
from jaxkd.distil.solved import BATCHES, with_solved_matrices
from jaxkd.distil.step import initial_state, make_step
from jaxkd.distil.student import prune
from jaxkd.distil.teacher import teacher_outputs
from jaxkd.distil.width import choose, importance, narrowed, prune_width
from jaxkd.models import families
from jaxkd.models.model import Model, Params, forward
from jaxkd.runtime.compilations import compilations
from jaxkd.search.space import Candidate, config_of
from jaxkd.search.teacher_states import TeacherStates
from jaxkd.train import parallel
from jaxkd.train.loop import NotFinite
from jaxkd.train.optimiser import AdamW

STARTS = ("teacher", "random")
IMPORTANCE_BATCHES = 8  # of the training split


class Starts:
    """First parameters of candidates.

    "random": drawn. "teacher": the teacher's most influential blocks, and of them the most
    important heads and channels (Minitron); all of it is measured once.
    """

    def __init__(
        self,
        kind: str,
        config: families.Config,
        params: Params,
        batches: Sequence[Batch],
        seed: int,
    ):
        self.kind, self.config, self.params, self.seed = kind, config, params, seed
        if kind == "teacher":
            model = families.build(config)
            arranged = model.arrange(params)
            self._influence = influence(model, arranged, batches)
            self._importance = None
            if not (model.shared or model.encoder is not None):
                self._importance = importance(model, arranged, batches)

    def of(self, candidate: Candidate) -> tuple[families.Config, Params]:
        """Config and parameters of a candidate."""
        config = config_of(self.config, candidate)
        if self.kind == "random":
            key = "_".join(f"{name}-{value}" for name, value in candidate.items())
            return config, families.build(config).init(self.seed, f"candidate {key}")
        kept = self._kept(config.layers)
        shorter, params = self.config.keep(kept), prune(self.params, kept)
        narrow = pruned_config(shorter, config)
        if narrow is None:
            return _with_activation(shorter, config), params
        scores = dataclasses.replace(
            self._importance,
            heads=self._importance.heads[kept],
            feed_forward=self._importance.feed_forward[kept],
        )
        return _with_activation(narrow, config), prune_width(
            shorter, params, choose(shorter, narrow, scores)
        )

    def _kept(self, count: int) -> list[int]:
        """The most influential blocks; with the first, where the family cannot do without it."""
        kept = most_influential(self._influence, count)
        try:
            self.config.keep(kept)
        except ValueError:
            scores = self._influence.copy()
            scores[0] = np.inf
            kept = most_influential(scores, count)
        return kept


def pruned_config(
    teacher: families.Config, narrow_config: families.Config
) -> families.Config | None:
    """The teacher's config at a candidate's width, heads and channels; None: they are the same.

    Raises:
      ValueError: if slices of the teacher's arrays do not give such a model.
    """
    sizes = ("heads", "feed_forward", "width")
    equal = all(getattr(narrow_config, name) == getattr(teacher, name) for name in sizes)
    if equal and not narrow_config.feed_forwards:
        return None
    narrow = narrowed(teacher, *(getattr(narrow_config, name) for name in sizes))
    return dataclasses.replace(narrow, feed_forwards=narrow_config.feed_forwards)


def _with_activation(config: families.Config, narrow_config: families.Config) -> families.Config:
    return dataclasses.replace(config, activation=narrow_config.activation)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a short distillation came to."""

    loss: float  # mean of the terms over the validation rows, squared distances as a share
    steps: int
    stopped: bool  # at a rung
    seconds: float
    compilations: int


@dataclasses.dataclass(frozen=True)
class ShortDistillation:
    """How every candidate is trained: no checkpoint is written.

    Args:
      rungs: steps after which `go_on(step, loss)` decides.
    """

    data: TeacherStates
    terms: objective.Terms
    optimiser: AdamW
    steps: int
    seed: int
    rungs: tuple[int, ...] = ()
    freeze: tuple[str, ...] = ()
    parallel: str = "auto"

    def __call__(
        self,
        config: families.Config,
        params: Params,
        go_on: Callable[[int, float], bool] = lambda step, loss: True,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Trained:
        """Train from `params`.

        Raises:
          NotFinite: if a loss is not finite.
          KeyboardInterrupt: if `stopping`.
        """
        began, compiled = time.perf_counter(), compilations()[0]
        model = families.build(config)
        run_step, place = parallel.strategy(self.parallel)
        params = model.arrange(params)
        validation = self.data.validation()
        # In one program: arrays made one by one would be a compilation for every shape.
        shapes = self._shapes(model, params, validation[0])
        own = jax.jit(lambda: objective.init(self.terms, self.seed, *shapes))()
        if own:
            count = min(BATCHES, self.data.steps)
            own = with_solved_matrices(
                self.terms,
                own,
                lambda p, batch: (forward(model, p, batch), teacher_outputs(None, None, batch)),
                params,
                [self.data.batch("train", i) for i in range(count)],
            )
            params = params | {"terms": own}
        optimiser = self.optimiser.build(params, self.steps, self.freeze)
        step = run_step(
            make_step(
                model,
                self.terms,
                optimiser,
                seed=self.seed,
                dropout=config.drops,
                freeze=self.freeze,
            )
        )
        state = place(initial_state(place(params), optimiser))
        measure = self._measure(model, config.layers)
        for done in range(1, self.steps + 1):
            if stopping():
                raise KeyboardInterrupt("stopped within a candidate; start again to go on")
            state, _ = step(state, None, self.data.batch("train", self._batch(done - 1)))
            if done in self.rungs or done == self.steps:
                loss = measure(state.params, validation)
                if not math.isfinite(loss):
                    raise NotFinite(f"the loss is {loss} after step {done}")
                if done == self.steps or not go_on(done, loss):
                    break
        seconds = time.perf_counter() - began
        return Trained(loss, done, done < self.steps, seconds, compilations()[0] - compiled)

    def _batch(self, step: int) -> int:
        """Number of the batch of a step: each epoch has all, in an order of its own."""
        epoch, at = divmod(step, self.data.steps)
        order = numpy_stream(self.seed, "order of a search", epoch).permutation(self.data.steps)
        return int(order[at])

    def _shapes(self, model: Model, params: Params, batch: Batch) -> tuple[Any, Any]:
        student = jax.eval_shape(lambda p, b: forward(model, p, b), params, batch)
        return student, jax.eval_shape(lambda b: teacher_outputs(None, None, b), batch)

    def _units(self, depth: int) -> dict[str, float]:
        """What each term is divided by: squared distances by that of the best constant answer.

        A loss of 1 is then that of a student that learned nothing, whatever the teacher's scale.
        """
        units = {}
        for name, term in self.terms.items():
            units[name] = 1.0
            if getattr(term, "kind", "") == "squared":
                of_pairs = [
                    np.mean([self.data.variance(layer) for layer in layers])
                    for _, layers in pairs(term.layer_map, depth, self.data.depth)
                ]
                units[name] = float(np.mean(of_pairs))
        return units

    def _measure(self, model: Model, depth: int) -> Callable[[Params, list[Batch]], float]:
        units = self._units(depth)

        @jax.jit
        def means(params: Params, batch: Batch) -> dict[str, Mean]:
            counts = objective.counts(self.terms, batch)
            outputs = teacher_outputs(None, None, batch)
            _, totals = objective.loss(
                self.terms, params.get("terms", {}), forward(model, params, batch), outputs, batch,
                counts,
            )  # fmt: skip
            return {name: Mean(totals[name], counts[name]) for name in self.terms}

        def measure(params: Params, batches: list[Batch]) -> float:
            each = [jax.device_get(means(params, batch)) for batch in batches]
            total, weights = 0.0, 0.0
            for name, term in self.terms.items():
                values = [np.array([m[name].total, m[name].count], np.float64) for m in each]
                summed, count = np.sum(values, axis=0)
                total += term.weight * summed / max(count, 1) / units[name]
                weights += term.weight
            return float(total / weights)

        return measure
