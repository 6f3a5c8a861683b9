"""Rules of early exit, compared with plain Python over rows one at a time."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxkd.exits import rules

EXITS = 5


def recorded(seed, classes, rows=6):
    """Logits of every exit, [rows, EXITS, classes]; few values, so that exits often agree."""
    return np.random.default_rng(seed).integers(-2, 3, (rows, EXITS, classes)).astype(np.float32)


def exits_of(rule, logits):
    """The exit at which each row stops, rows of a batch together."""
    rule.check(logits.shape[2], EXITS)
    history = rules.History.start(len(logits), logits.shape[2])
    stopped = np.full(len(logits), EXITS - 1)
    for i in range(EXITS):
        history, stop = rule.decide(history, jnp.array(logits[:, i]), i)
        stopped = np.minimum(stopped, np.where(np.array(stop), i, EXITS - 1))
    return stopped.tolist()


def patience(row, limit, tolerance):
    """Algorithm 1 of Zhou et al. (2020), for one row."""
    count, last = 0, None
    for i, logits in enumerate(row):
        answer = float(logits[0]) if len(logits) == 1 else int(np.argmax(logits))
        if last is None:
            same = False
        elif len(logits) == 1:
            same = abs(answer - last) < tolerance
        else:
            same = answer == last
        count = count + 1 if same else 0
        if count == limit:
            return i
        last = answer
    return len(row) - 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 3]), st.integers(1, EXITS - 1))
def test_patience_is_the_papers_algorithm_row_by_row(seed, classes, limit):
    logits = recorded(seed, classes)
    rule = rules.Patience(patience=limit, tolerance=1.5)
    assert exits_of(rule, logits) == [patience(row, limit, 1.5) for row in logits]


def first(rows):
    """The first true entry of each row, or the last exit."""
    return [next((i for i, hit in enumerate(row) if hit), EXITS - 1) for row in rows]


def run_of(row, length):
    """Whether the last `length` entries up to each are all true."""
    return [i + 1 >= length and all(row[i + 1 - length : i + 1]) for i in range(len(row))]


@pytest.mark.parametrize("seed", range(3))
def test_each_rule_stops_where_its_definition_says(seed):
    logits = recorded(seed, 3, rows=20)
    probs = scipy.special.softmax(logits, axis=2)
    entropy = scipy.stats.entropy(probs, axis=2)
    assert exits_of(rules.Entropy(threshold=0.7), logits) == first(entropy < 0.7)
    sure = probs.max(2) >= 0.6
    assert exits_of(rules.Confidence(threshold=0.6), logits) == first(sure)
    rule = rules.ConfidentPatience(patience=2, threshold=0.6)
    assert exits_of(rule, logits) == first([run_of(list(row), 2) for row in sure])
    kl = scipy.special.rel_entr
    near = np.zeros(sure.shape, bool)
    for i in range(1, EXITS):
        p, q = probs[:, i - 1], probs[:, i]
        near[:, i] = (kl(p, q).sum(1) + kl(q, p).sum(1)) < 0.5
    rule = rules.Distance(patience=2, threshold=0.5)
    assert exits_of(rule, logits) == first([run_of(list(row), 2) for row in near])


@pytest.mark.parametrize(
    "logits, at_states",
    [
        # Two classes: below a probability of 0.5 for the second in bin 0, above it in bin 1.
        (
            [[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]],
            ((0, 0), (1, 2), (3, 1), (4, 3)),
        ),
        # Three: every confidence is in bin 1.
        (
            [[2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 2.0, 0.0]],
            ((0, 1), (1, 3), (3, 1), (4, 3)),
        ),
    ],
    ids=["two classes", "three classes"],
)
def test_the_table_is_read_at_the_rows_bin_and_agreement(logits, at_states):
    edges = np.full((EXITS, 1), 0.5)
    for at, state in at_states:
        table = np.zeros((EXITS, 4), bool)
        table[at, state] = True
        rule = rules.OptimalStopping(table=table, edges=edges)
        assert exits_of(rule, np.array([logits])) == [at]
        table[at] = False
        table[at, [s for s in range(4) if s != state]] = True
        rule = rules.OptimalStopping(table=table, edges=edges)
        assert exits_of(rule, np.array([logits])) == [EXITS - 1]


@pytest.mark.parametrize(
    "rule, labels, message",
    [
        (rules.Patience(patience=5), 2, "patience is 5.*Allowed: 1 to 4"),
        (rules.Patience(patience=0), 2, "patience"),
        (rules.Patience(tolerance=0.0), 1, "tolerance"),
        (rules.Entropy(threshold=-1.0), 2, "threshold"),
        (rules.Entropy(), 1, "predicts one number"),
        (rules.Confidence(threshold=1.5), 2, "threshold"),
        (rules.ConfidentPatience(patience=6), 2, "Allowed: 1 to 5"),
        (rules.Distance(patience=5), 2, "Allowed: 1 to 4"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(rule, labels, message):
    with pytest.raises(ValueError, match=message):
        rule.check(labels, EXITS)
