"""CtcHypotheses against enumeration of all paths."""

import itertools
import math

import numpy as np
import pytest

from jaxkd.decode.ctc import collapsed, n_best

PLACES, LABELS = 5, 4  # the blank is one of these


def places(seed=0, sharp=1.5):
    logits = np.random.default_rng(seed).normal(size=(PLACES, LABELS)) * sharp
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def enumerated(log_p):
    """The log-probability of every spelling: all paths, one by one."""
    actual = {}
    for path in itertools.product(range(LABELS), repeat=len(log_p)):
        spelling, last = [], 0
        for label in path:
            if label not in (0, last):
                spelling.append(label)
            last = label
        value = sum(row[label] for row, label in zip(log_p, path, strict=True))
        key = tuple(spelling)
        actual[key] = np.logaddexp(actual.get(key, -math.inf), value)
    return sorted(actual.items(), key=lambda item: -item[1])


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_that_keeps_all_is_exact(seed):
    log_p = places(seed)
    expected = enumerated(log_p)
    actual = n_best(log_p, width=len(expected), n=len(expected))
    assert [spelling for spelling, _ in actual[:20]] == [spelling for spelling, _ in expected[:20]]
    np.testing.assert_allclose([v for _, v in actual], [v for _, v in expected], atol=1e-9)
    np.testing.assert_allclose(sum(math.exp(v) for _, v in actual), 1.0, rtol=1e-9)


def test_the_likeliest_spelling_need_not_be_the_likeliest_path():
    log_p = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert collapsed(log_p.argmax(1)) == []
    assert n_best(log_p, width=4, n=1)[0][0] == (1,)


def test_a_narrow_beam_finds_the_best_of_a_sharp_model():
    log_p = places(sharp=6.0)
    (spelling, value), *_ = n_best(log_p, width=3, n=2, labels=2)
    assert spelling == enumerated(log_p)[0][0]
    assert value <= enumerated(log_p)[0][1] + 1e-9  # paths it did not keep are missing


@pytest.mark.parametrize(
    "path, spelling", [([], []), ([0, 0], []), ([3, 3, 0, 3], [3, 3]), ([1, 2, 2, 1], [1, 2, 1])]
)
def test_what_a_path_spells(path, spelling):
    assert collapsed(np.array(path, int)) == spelling
