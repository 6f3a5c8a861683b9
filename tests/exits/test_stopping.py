"""Optimal stopping: no other table does better on the chain it was made for."""

import itertools

import numpy as np
import pytest

from jaxkd.exits import stopping

TIMES = np.array([1.5, 1.0, 2.0])


def chain(seed):
    draw = np.random.default_rng(seed)
    moves = draw.dirichlet([1.0, 1.0], (2, 2))
    start = draw.dirichlet([1.0, 1.0])
    share = np.stack([start, start @ moves[0], start @ moves[0] @ moves[1]])
    return stopping.Chain(draw.uniform(0, 1, (3, 2)), moves, share)


def simulated(chain, table):
    """Quality and time of a table, summed over all paths of states."""
    quality = time = 0.0
    for path in itertools.product(range(2), repeat=3):
        weight = chain.share[0, path[0]]
        for i in range(2):
            weight *= chain.moves[i, path[i], path[i + 1]]
        at = next(i for i in range(3) if i == 2 or table[i, path[i]])
        quality += weight * chain.quality[at, path[at]]
        time += weight * TIMES[: at + 1].sum()
    return quality, time


@pytest.mark.parametrize("price", [0.0, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_no_policy_of_a_small_chain_is_better(seed, price):
    known = chain(seed)
    policy = stopping.solve(known, TIMES, price)
    quality, time = simulated(known, policy.stop)
    np.testing.assert_allclose([policy.quality, policy.milliseconds], [quality, time], rtol=1e-12)
    values = []
    for bits in itertools.product([False, True], repeat=4):
        other = np.array([bits[:2], bits[2:], (True, True)])
        quality, time = simulated(known, other)
        values.append(quality - price * time)
    np.testing.assert_allclose(policy.quality - price * policy.milliseconds, max(values))
    np.testing.assert_allclose(policy.exits.sum(), 1.0)


def test_a_deadline_bounds_the_worst_row_and_is_best_among_those_that_keep_it():
    known = chain(0)
    policy = stopping.solve(known, TIMES, 0.0, deadline=2.6)  # two exits take 2.5
    assert policy.stop[1].all() and policy.exits[2] == 0
    values = []
    for first in itertools.product([False, True], repeat=2):
        quality, _ = simulated(known, np.array([first, (True, True), (True, True)]))
        values.append(quality)
    np.testing.assert_allclose(policy.quality, max(values))
    with pytest.raises(ValueError, match="the first exit answers after 1.5 ms"):
        stopping.solve(known, TIMES, 0.0, deadline=1.0)


def test_a_high_price_stops_at_once_and_a_negative_one_is_refused():
    policy = stopping.solve(chain(1), TIMES, 1e6)
    assert policy.exits.tolist() == [1.0, 0.0, 0.0] and policy.milliseconds == 1.5
    with pytest.raises(ValueError, match="price is -1"):
        stopping.solve(chain(1), TIMES, -1.0)


def test_a_chain_is_counted_from_rows():
    states = np.array([[0, 1], [0, 1], [0, 0], [1, 1]])
    quality = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    known = stopping.count_chain(states, quality, 3)
    np.testing.assert_allclose(known.share, [[0.75, 0.25, 0], [0.25, 0.75, 0]])
    np.testing.assert_allclose(known.quality[0], [2 / 3, 0, 0.5])  # nobody in state 2: the mean
    np.testing.assert_allclose(known.quality[1], [0, 1, 0.75])
    np.testing.assert_allclose(known.moves[0, 0], [1 / 3, 2 / 3, 0])
    np.testing.assert_allclose(known.moves[0, 1], [0, 1, 0])
    np.testing.assert_allclose(known.moves[0, 2], [0.25, 0.75, 0])
