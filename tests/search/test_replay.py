"""Optimisers on outcomes that are looked up."""

import pytest

from jaxkd.models.bert import Config
from jaxkd.search.optimisers import Evolution, Outcome, Random
from jaxkd.search.replay import measured_space, replay
from jaxkd.search.space import own_feed_forwards

TEACHER = Config(layers=4, width=8, heads=4, feed_forward=16)
CHOICES = {"layers": (1, 2, 3, 4), "feed_forward": (4, 8, 16)}
MEASURED = [{"layers": n, "feed_forward": 8} for n in (1, 2, 3)] + [
    {"layers": 4, "feed_forward": 16}
]


class InOrder:
    """Suggests what was given to it, and keeps what it observes."""

    def __init__(self, candidates):
        self.candidates, self.observed = candidates, []

    def suggest(self, number, taken=()):
        return self.candidates[number]

    def observe(self, candidate, outcome):
        self.observed.append((candidate, outcome))


def test_only_what_was_measured_is_a_candidate():
    space = measured_space(TEACHER, CHOICES, MEASURED)
    assert space.all() == MEASURED


def test_own_feed_forwards_of_blocks_that_a_candidate_lacks_do_not_count():
    choices = {"layers": (1, 2)} | own_feed_forwards(2, (4, 8))
    teacher = Config(layers=2, width=8, heads=4, feed_forward=16)
    measured = [
        {"layers": 1, "feed_forward_0": 8, "feed_forward_1": 4},
        {"layers": 2, "feed_forward_0": 4, "feed_forward_1": 8},
    ]
    assert measured_space(teacher, choices, measured).all() == measured


def test_the_best_so_far_is_kept_until_the_best_of_all():
    space = measured_space(TEACHER, CHOICES, MEASURED)
    rewards = dict(zip(map(space.key, MEASURED), (0.3, 0.2, 0.9, 0.5), strict=True))
    outcomes = {key: Outcome(reward) for key, reward in rewards.items()}
    optimiser = InOrder(MEASURED)
    assert replay(lambda *_: optimiser, space, outcomes, 0) == [(1, 0.3), (3, 0.9)]
    # It learned of each candidate, and nothing was measured after the best.
    assert optimiser.observed == [(each, outcomes[space.key(each)]) for each in MEASURED[:3]]


@pytest.mark.parametrize("make", [Random, Evolution])
def test_every_optimiser_ends_at_the_best(make):
    space = measured_space(TEACHER, CHOICES, MEASURED)
    outcomes = {space.key(each): Outcome(float(each["layers"])) for each in MEASURED}
    for seed in range(5):
        improvements = replay(make, space, outcomes, seed)
        assert improvements[-1][1] == 4.0 and improvements[-1][0] <= 4
        assert improvements == sorted(improvements)
