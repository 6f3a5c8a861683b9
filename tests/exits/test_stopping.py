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
    with pytest.raises(ValueError, match="the first exit may take 1.5 ms"):
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


def with_depth(rows, seed):
    """Logits and labels of exits that are surer and more often right the deeper they are."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, rows)
    evidence = np.cumsum(draw.normal(0.5, 1.0, (rows, 4)), 1)
    logits = draw.normal(0, 0.1, (rows, 4, 3))
    logits[np.arange(rows), :, labels] += evidence
    return logits.astype(np.float32), labels


def walks(known, rows, seed):
    """States of rows that move as the chain says, and answers as good as their states are."""
    draw = np.random.default_rng(seed)
    states = np.zeros((rows, 3), int)
    states[:, 0] = draw.random(rows) < known.share[0, 1]
    for i in range(2):
        states[:, i + 1] = draw.random(rows) < known.moves[i, states[:, i], 1]
    right = draw.random((rows, 3)) < known.quality[np.arange(3), states]
    return states, right.astype(float)


@pytest.mark.parametrize("price", [0.0, 0.05, 0.2])
def test_what_a_calibration_expects_is_what_unseen_rows_of_the_chain_achieve(price):
    true = chain(2)
    counted = stopping.count_chain(*walks(true, 40_000, 0), 2)
    policy = stopping.solve(counted, TIMES, price)
    states, right = walks(true, 40_000, 1)
    stopped = np.array(first(policy.stop[np.arange(3), states]))
    rows = np.arange(len(states))
    # Two samples of 40,000: five standard errors of the difference of two shares are 0.018.
    np.testing.assert_allclose(policy.quality, right[rows, stopped].mean(), atol=0.018)
    spent = TIMES.cumsum()[stopped]
    error = 5 * np.sqrt(2 * spent.var() / len(spent))
    np.testing.assert_allclose(policy.milliseconds, spent.mean(), atol=max(error, 1e-9))


def first(rows):
    return [next(i for i in range(3) if i == 2 or row[i]) for row in rows]


def test_a_higher_price_never_takes_longer():
    known = stopping.calibrate(*with_depth(4_000, 0), bins=8)
    spent = [stopping.solve(known.chain, np.ones(4), p).milliseconds for p in (0.5, 0.1, 0.02, 0.0)]
    assert spent == sorted(spent) and spent[0] == 1.0 and spent[-1] > 2


def test_bins_hold_equally_many_rows_and_few_rows_are_refused():
    known = stopping.calibrate(*with_depth(800, 0), bins=4)
    share = known.chain.share.reshape(4, 2, 4).sum(1)  # agreeing or not
    np.testing.assert_allclose(share, 0.25, atol=0.01)
    with pytest.raises(ValueError, match="at most 5 bins"):
        stopping.calibrate(*with_depth(100, 0), bins=8)


def test_a_regressions_answers_are_as_good_as_they_are_near():
    draw = np.random.default_rng(0)
    labels = draw.normal(size=400)
    logits = (labels[:, None] + draw.normal(size=(400, 3)) / [1, 2, 4])[..., None]
    known = stopping.calibrate(logits.astype(np.float32), labels, bins=2, tolerance=0.2, prior=0.0)
    policy = stopping.solve(known.chain, np.ones(3), 0.0)
    assert policy.exits[2] > 0.5
    np.testing.assert_allclose(
        (known.chain.share * known.chain.quality).sum(1),
        -np.abs(logits[..., 0] - labels[:, None]).mean(0),
    )


def test_a_prior_draws_rare_states_to_the_average():
    states = np.array([[0, 0], [0, 1], [0, 1], [1, 1]])
    quality = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    known = stopping.count_chain(states, quality, 3, prior=2.0)
    # One row of quality 1 and two of the mean 0.5; no row and two of the mean.
    np.testing.assert_allclose(known.quality[0], [(1 + 2 * 0.5) / 5, (1 + 2 * 0.5) / 3, 0.5])
    # From state 1: one row to state 1, and two as all rows moved (a quarter to 0).
    np.testing.assert_allclose(known.moves[0, 1], [0.5 / 3, 2.5 / 3, 0])
    np.testing.assert_allclose(known.moves.sum(-1), 1)


def test_a_row_is_judged_by_a_table_that_has_not_seen_it():
    logits, labels = with_depth(400, 0)
    known = stopping.calibrate(logits, labels, bins=2)

    def rule_of(made):
        return made.rule(stopping.solve(made.chain, np.ones(4), 0.05))

    exits = stopping.cross_fitted(logits, labels, known, rule_of)
    own = np.arange(400) % stopping.FOLDS == 0
    other_labels = np.where(own, (labels + 1) % 3, labels)
    again = stopping.cross_fitted(logits, other_labels, known, rule_of)
    np.testing.assert_array_equal(exits[own], again[own])
    assert (exits[~own] != again[~own]).any()


def test_a_deadline_goes_by_the_slowest_times():
    known = stopping.calibrate(*with_depth(800, 0), bins=2)
    slowest = np.array([2.0, 4.0, 8.0, 9.0])
    policy = stopping.solve(known.chain, np.ones(4), 0.0, deadline=5.0, slowest=slowest)
    assert policy.stop[1].all() and policy.exits[2:].sum() == 0
    with pytest.raises(ValueError, match="deadline is 1 ms; the first exit may take 2 ms"):
        stopping.solve(known.chain, np.ones(4), 0.0, deadline=1.0, slowest=slowest)
