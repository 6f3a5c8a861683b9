"""Optuna's samplers as optimisers: multivariate TPE, and NSGA-II for the front.

Source: Watanabe (2023), arXiv:2304.11127 (TPE); Deb et al. (2002), NSGA-II.
"""

import math
from collections.abc import Collection
from typing import Any

from jaxkd.core.random import numpy_stream
from jaxkd.search.optimisers import Outcome, unseen
from jaxkd.search.optuna_package import optuna
from jaxkd.search.space import SIZES, Candidate, Space

TRIES = 100  # proposals, until one is new and allowed


class Sampled:
    """Candidates as a sampler of Optuna proposes them.

    The sampler knows a dimension's values and not which go together. What a proposal exceeds is
    told to it as the constraints of a trial, at no cost, and it proposes again; a candidate that
    was measured before is answered from memory.

    Args:
      kind: "tpe", which maximises the reward, or "nsga2", which minimises loss and milliseconds.
      population: of NSGA-II.
    """

    def __init__(self, space: Space, seed: int, kind: str = "tpe", population: int = 12):
        if kind not in ("tpe", "nsga2"):
            raise ValueError(f"kind is {kind!r}; it is tpe or nsga2.")
        self.space, self.seed, self.kind, self.population = space, seed, kind, population
        # Of one value there is nothing to choose.
        self._distributions = {
            name: _distribution(name, values)
            for name, values in space.values.items()
            if len(values) > 1
        }
        directions = ["maximize"] if kind == "tpe" else ["minimize", "minimize"]
        self._study = optuna.create_study(directions=directions)
        self._open: dict[str, Any] = {}  # trials that were proposed and are not observed yet
        self._known: dict[str, Outcome | None] = {}

    def suggest(self, number: int, taken: Collection[str] = ()) -> Candidate:
        random = numpy_stream(self.seed, f"optuna {self.kind}", number)
        # A sampler of its own for each number, so that an interruption changes nothing.
        self._study.sampler = self._sampler(int(random.integers(2**31)))
        for _ in range(TRIES):
            trial = self._study.ask(self._distributions)
            candidate = self._candidate(trial.params)
            excess = self.space.excess(candidate)
            if excess:
                for name, value in excess.items():
                    trial.set_constraint(name, value)
                self._tell(trial, Outcome(0.0, 0.0, 0.0))
                continue
            key = self.space.key(candidate)
            if key in self._known:
                self._tell(trial, self._known[key])
                continue
            if key in taken:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            self._open[key] = trial
            return candidate
        seen = self._known.keys() | set(taken)
        return unseen(self.space, random, seen, TRIES)

    def observe(self, candidate: Candidate, outcome: Outcome | None) -> None:
        key = self.space.key(candidate)
        trial = self._open.pop(key, None)
        if trial is None:
            self._study.enqueue_trial(
                {name: self._param(name, candidate[name]) for name in self._distributions}
            )
            trial = self._study.ask(self._distributions)
        self._known[key] = outcome
        self._tell(trial, outcome)

    def _tell(self, trial: Any, outcome: Outcome | None) -> None:
        values = None if outcome is None else self._values(outcome)
        if values is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, values)

    def _values(self, outcome: Outcome) -> list[float] | None:
        values = [outcome.reward]
        if self.kind == "nsga2":
            values = [outcome.loss, outcome.milliseconds]
        return values if all(map(math.isfinite, values)) else None

    def _candidate(self, params: dict[str, Any]) -> Candidate:
        def value(name: str, values: tuple[Any, ...]) -> Any:
            if name not in params:
                return values[0]
            return values[params[name]] if name in SIZES else params[name]

        return {name: value(name, values) for name, values in self.space.values.items()}

    def _param(self, name: str, value: Any) -> Any:
        return self.space.values[name].index(value) if name in SIZES else value

    def _sampler(self, seed: int) -> Any:
        if self.kind == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=self.population, seed=seed)
        return optuna.samplers.TPESampler(multivariate=True, seed=seed)


def _distribution(name: str, values: tuple[Any, ...]) -> Any:
    """Sizes by their place among the values, which are not evenly spaced; else classes."""
    if name in SIZES:
        return optuna.distributions.IntDistribution(0, len(values) - 1)
    return optuna.distributions.CategoricalDistribution(values)
