"""Optimisers on a tabulated space, where the best reward is known."""

import functools
import statistics

import numpy as np
import pytest

from jaxkd.models.bert import Config
from jaxkd.search.controller import Controller
from jaxkd.search.optimisers import Evolution, Outcome, Random
from jaxkd.search.sampled import Sampled
from jaxkd.search.space import Space

CHOICES = {
    "layers": (1, 2, 3, 4, 6, 8, 10, 12), "width": (48, 96, 144, 192, 288, 384),
    "heads": (1, 2, 3, 4, 6, 12), "feed_forward": (96, 192, 384, 768, 1536),
}  # fmt: skip
SPACE = Space(Config(layers=12, width=384, heads=12, feed_forward=1536), CHOICES)
ALL = SPACE.all()
OPTIMISERS = {
    "random": Random,
    "evolution": Evolution,
    "controller": Controller,
    "tpe": Sampled,
    "nsga2": functools.partial(Sampled, kind="nsga2"),
}


def table(seed):
    """Rewards of all candidates: smooth in the sizes, and a little noise that stays."""
    draw = np.random.default_rng(seed)
    rewards = {}
    best = {name: draw.integers(len(values)) for name, values in CHOICES.items()}
    for candidate in ALL:
        off = sum(
            ((CHOICES[name].index(value) - best[name]) / len(CHOICES[name])) ** 2
            for name, value in candidate.items()
        )
        rewards[SPACE.key(candidate)] = 0.9 * np.exp(-2 * off) + draw.uniform(0, 0.01)
    return rewards


def outcome(rewards, candidate):
    reward = rewards[SPACE.key(candidate)]
    return Outcome(reward, 1 - reward, float(candidate["layers"]))


def needed(make, seed, within=0.02, most=1500):
    """Candidates until one is within 2% of the best reward."""
    rewards = table(seed)
    best, optimiser = max(rewards.values()), make(SPACE, seed)
    for count in range(1, most + 1):
        candidate = optimiser.suggest(count - 1)
        reward = rewards[SPACE.key(candidate)]
        if reward >= (1 - within) * best:
            return count
        optimiser.observe(candidate, Outcome(reward))
    return most


@functools.cache
def needed_by_chance():
    return statistics.median(needed(Random, seed) for seed in range(15))


@pytest.mark.parametrize(("name", "seeds"), [("evolution", 15), ("tpe", 5), ("controller", 5)])
def test_at_most_half_of_what_random_search_needs(name, seeds):
    candidates = [needed(OPTIMISERS[name], seed, most=750) for seed in range(seeds)]
    assert statistics.median(candidates) <= needed_by_chance() / 2


@pytest.mark.parametrize("name", OPTIMISERS)
def test_no_candidate_is_tried_twice_and_a_small_space_is_exhausted(name):
    space = Space(Config(width=8, heads=4), {"width": (2, 4, 6, 8), "heads": (1, 2, 4)})
    optimiser, seen = OPTIMISERS[name](space, 0), []
    for i in range(len(space.all())):
        candidate = optimiser.suggest(i)
        seen.append(space.key(candidate))
        optimiser.observe(candidate, None if i % 3 else Outcome(float(i), 1.0, 1.0))
    assert sorted(seen) == sorted(map(space.key, space.all()))
    assert optimiser.suggest(len(seen)) in space.all()  # then again


@pytest.mark.parametrize("name", OPTIMISERS)
def test_what_was_observed_brings_an_optimiser_back(name):
    rewards = table(0)
    whole, first = OPTIMISERS[name](SPACE, 3), []
    for i in range(40):
        candidate = whole.suggest(i)
        first.append(candidate)
        whole.observe(candidate, outcome(rewards, candidate))
    again = OPTIMISERS[name](SPACE, 3)
    for candidate in first:  # what was suggested is not asked for again
        again.observe(candidate, outcome(rewards, candidate))
    assert again.suggest(40) == whole.suggest(40)


def test_failures_leave_no_mark_on_evolution():
    optimiser = Evolution(SPACE, 0, population=4, tournament=2)
    for i in range(30):
        optimiser.observe(optimiser.suggest(i), None)
    assert optimiser.suggest(30)
    with pytest.raises(ValueError, match="tournament is 9 of a population of 4"):
        Evolution(SPACE, 0, population=4, tournament=9)
