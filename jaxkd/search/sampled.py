"""Optuna's samplers as optimisers: multivariate TPE, and NSGA-II for the front.

Source: Watanabe (2023), arXiv:2304.11127 (TPE); Deb et al. (2002), NSGA-II.
"""

import math
from collections.abc import Collection
from typing import Any

from jaxkd.core.random import numpy_stream
from jaxkd.search.optimisers import Outcome, unseen
from jaxkd.search.optuna_package import optuna
from jaxkd.search.space import Candidate, Space, is_size

TRIES = 100  # proposals, until one is new and allowed


class Sampled:
    """Candidates as a sampler of Optuna proposes them.

    The sampler knows a dimension's values and not which go together. What a proposal exceeds is
    passed to it as the constraints of a trial, at no cost, and it proposes again; a candidate that
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
        self._known: dict[str, tuple[Candidate, Outcome | None]] = {}  # in order

    def suggest(self, number: int, taken: Collection[str] = ()) -> Candidate:
        random = numpy_stream(self.seed, f"optuna {self.kind}", number)
        study = self._replayed()
        # A sampler of its own for each number, so that an interruption changes nothing.
        study.sampler = self._sampler(int(random.integers(2**31)))
        for _ in range(TRIES):
            trial = study.ask(self._distributions)
            candidate = self._candidate(trial.params)
            excess = self.space.excess(candidate)
            if excess:
                for name, value in excess.items():
                    trial.set_constraint(name, value)
                self._record(study, trial, Outcome(0.0, 0.0, 0.0))
                continue
            key = self.space.key(candidate)
            if key not in self._known and key not in taken:
                return candidate
            self._record(study, trial, self._known[key][1] if key in self._known else None)
        seen = self._known.keys() | set(taken)
        return unseen(self.space, random, seen, TRIES)

    def observe(self, candidate: Candidate, outcome: Outcome | None) -> None:
        self._known[self.space.key(candidate)] = (candidate, outcome)

    def _replayed(self) -> Any:
        """A study that has seen what was observed, and nothing else."""
        directions = ["maximize"] if self.kind == "tpe" else ["minimize", "minimize"]
        study = optuna.create_study(directions=directions, sampler=self._sampler(self.seed))
        for candidate, outcome in self._known.values():
            study.enqueue_trial(
                {name: self._param(name, candidate[name]) for name in self._distributions}
            )
            self._record(study, study.ask(self._distributions), outcome)
        return study

    def _record(self, study: Any, trial: Any, outcome: Outcome | None) -> None:
        values = None if outcome is None else self._values(outcome)
        if values is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, values)

    def _values(self, outcome: Outcome) -> list[float] | None:
        values = [outcome.reward]
        if self.kind == "nsga2":
            values = [outcome.loss, outcome.milliseconds]
        return values if all(map(math.isfinite, values)) else None

    def _candidate(self, params: dict[str, Any]) -> Candidate:
        def value(name: str, values: tuple[Any, ...]) -> Any:
            if name not in params:
                return values[0]
            return values[params[name]] if is_size(name) else params[name]

        chosen = {name: value(name, values) for name, values in self.space.values.items()}
        return self.space.canonical(chosen)

    def _param(self, name: str, value: Any) -> Any:
        return self.space.values[name].index(value) if is_size(name) else value

    def _sampler(self, seed: int) -> Any:
        if self.kind == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=self.population, seed=seed)
        return optuna.samplers.TPESampler(multivariate=True, seed=seed)


def _distribution(name: str, values: tuple[Any, ...]) -> Any:
    """Sizes by their place among the values, which are not evenly spaced; else classes."""
    if is_size(name):
        return optuna.distributions.IntDistribution(0, len(values) - 1)
    return optuna.distributions.CategoricalDistribution(values)
