"""Which candidate to try next: random search and evolution, behind one interface.

An optimiser is a deterministic function of its seed and of what it observed: after an interruption
the same calls in the same order bring it back.
"""

import math
from collections import deque
from typing import Protocol

import numpy as np

from jaxkd.core.random import numpy_stream
from jaxkd.search.space import Candidate, Space


class Optimiser(Protocol):
    """Proposes candidates and learns from their rewards."""

    def suggest(self) -> Candidate:
        """The next candidate to measure."""

    def observe(self, candidate: Candidate, reward: float | None) -> None:
        """Its reward; None: it could not be measured."""


class Random:
    """Candidates as `Space.draw` draws them; one that was tried only if TRIES draws give no other.

    The baseline that every other optimiser has to beat.
    """

    TRIES = 200

    def __init__(self, space: Space, seed: int):
        self.space = space
        self._random = numpy_stream(seed, "random search", 0)
        self._seen: set[str] = set()

    def suggest(self) -> Candidate:
        return unseen(self.space, self._random, self._seen, self.TRIES)

    def observe(self, candidate: Candidate, reward: float | None) -> None:
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
        self.space, self.tournament = space, tournament
        self._alive: deque[tuple[float, Candidate]] = deque(maxlen=population)
        self._random = numpy_stream(seed, "evolution", 0)
        self._seen: set[str] = set()
        self._first = population

    def suggest(self) -> Candidate:
        if len(self._seen) < self._first or not self._alive:
            return unseen(self.space, self._random, self._seen, Random.TRIES)
        size = min(self.tournament, len(self._alive))
        drawn = self._random.choice(len(self._alive), size, replace=False)
        _, parent = max((self._alive[i] for i in drawn), key=lambda each: each[0])
        for changes in range(1, 1 + Random.TRIES):
            # One change where that is new, and more as the neighbourhood is used up.
            child = self._changed(parent, 1 + changes // 20)
            if self.space.key(child) not in self._seen:
                return child
        return unseen(self.space, self._random, self._seen, Random.TRIES)

    def _changed(self, parent: Candidate, changes: int) -> Candidate:
        target = dict(parent)
        for _ in range(changes):
            name = self.space.names[self._random.integers(len(self.space.names))]
            others = [v for v in self.space.values[name] if v != target[name]]
            if others:
                target[name] = others[self._random.integers(len(others))]
        return self.space.complete(target)

    def observe(self, candidate: Candidate, reward: float | None) -> None:
        self._seen.add(self.space.key(candidate))
        if reward is not None and math.isfinite(reward):
            self._alive.append((reward, candidate))


def unseen(space: Space, random: np.random.Generator, seen: set[str], tries: int) -> Candidate:
    """A drawn candidate that is not among `seen`; any, if `tries` draws give no new one."""
    candidate = space.draw(random)
    for _ in range(tries):
        if space.key(candidate) not in seen:
            break
        candidate = space.draw(random)
    return candidate
