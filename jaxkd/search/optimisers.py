"""Which candidate to try next: random search and evolution, behind one interface.

An optimiser's next candidate follows from its seed, its number, and what was observed before: after
an interruption the same observations bring it back.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Collection
from typing import Protocol

import numpy as np

from jaxkd.core.random import numpy_stream
from jaxkd.search.space import Candidate, Space


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an optimiser learns of a candidate."""

    reward: float
    loss: float = math.nan  # the reward's terms, for optimisers of the front
    milliseconds: float = math.nan


class Optimiser(Protocol):
    """Proposes candidates and learns from their rewards."""

    def suggest(self, number: int, taken: Collection[str] = ()) -> Candidate:
        """A candidate to measure.

        Args:
          number: of candidates before it; another number draws other random numbers.
          taken: keys of candidates that others are measuring now.
        Returns: one that was not observed and is not taken, as long as the space has such.
        """

    def observe(self, candidate: Candidate, outcome: Outcome | None) -> None:
        """What was measured of it; None: it could not be measured."""


class Random:
    """Candidates as `Space.draw` draws them; one that was tried only if TRIES draws give no other.

    The baseline that every other optimiser has to beat.
    """

    TRIES = 200

    def __init__(self, space: Space, seed: int):
        self.space, self.seed = space, seed
        self._seen: set[str] = set()

    def suggest(self, number: int, taken: Collection[str] = ()) -> Candidate:
        random = numpy_stream(self.seed, "random search", number)
        return unseen(self.space, random, self._seen | set(taken), self.TRIES)

    def observe(self, candidate: Candidate, outcome: Outcome | None) -> None:
        self._seen.add(self.space.key(candidate))


class Evolution:
    """Regularised evolution: change the best of a few, forget the oldest.

    Source: Real et al. (2019), Regularized Evolution, arXiv:1802.01548.

    Args:
      population: candidates that are remembered; the first ones are random.
      tournament: of these, drawn at random, the best is changed.
    """

    def __init__(self, space: Space, seed: int, population: int = 16, tournament: int = 6):
        if not 1 <= tournament <= population:
            raise ValueError(
                f"tournament is {tournament} of a population of {population}: 1 to {population}."
            )
        self.space, self.seed, self.tournament = space, seed, tournament
        self._alive: deque[tuple[float, Candidate]] = deque(maxlen=population)
        self._seen: set[str] = set()
        self._first = population

    def suggest(self, number: int, taken: Collection[str] = ()) -> Candidate:
        random = numpy_stream(self.seed, "evolution", number)
        seen = self._seen | set(taken)
        if len(self._seen) < self._first or not self._alive:
            return unseen(self.space, random, seen, Random.TRIES)
        size = min(self.tournament, len(self._alive))
        drawn = random.choice(len(self._alive), size, replace=False)
        _, parent = max((self._alive[i] for i in drawn), key=lambda each: each[0])
        for changes in range(1, 1 + Random.TRIES):
            # One change where that is new, and more as the neighbourhood is used up.
            child = self._changed(random, parent, 1 + changes // 20)
            if self.space.key(child) not in seen:
                return child
        return unseen(self.space, random, seen, Random.TRIES)

    def _changed(self, random: np.random.Generator, parent: Candidate, changes: int) -> Candidate:
        target = dict(parent)
        for _ in range(changes):
            name = self.space.names[random.integers(len(self.space.names))]
            others = [v for v in self.space.values[name] if v != target[name]]
            if others:
                target[name] = others[random.integers(len(others))]
        return self.space.complete(target)

    def observe(self, candidate: Candidate, outcome: Outcome | None) -> None:
        self._seen.add(self.space.key(candidate))
        if outcome is not None and math.isfinite(outcome.reward):
            self._alive.append((outcome.reward, candidate))


def unseen(space: Space, random: np.random.Generator, seen: set[str], tries: int) -> Candidate:
    """A drawn candidate that is not among `seen`; any, if `tries` draws give no new one."""
    candidate = space.draw(random)
    for _ in range(tries):
        if space.key(candidate) not in seen:
            break
        candidate = space.draw(random)
    return candidate
