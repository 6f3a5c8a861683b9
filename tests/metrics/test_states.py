"""Merged states equal scikit-learn's and scipy's numbers on all predictions at once."""

import functools
import operator
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, matthews_corrcoef

from jaxkd.core.mean import Mean
from jaxkd.metrics.states import Collected, Confusion, Moments, merge_stacked, on_host, ranks


def merged(states):
    return functools.reduce(operator.add, map(on_host, states))


def confusion(predictions, labels, classes, cuts=(3, 11)):
    """Of three batches of unlike sizes, each with a row that does not count."""
    states = []
    for p, y in zip(np.split(predictions, cuts), np.split(labels, cuts), strict=True):
        mask = np.arange(len(p) + 1) < len(p)
        pad = lambda x: jnp.array(np.append(x, classes - 1))  # noqa: E731
        states.append(Confusion.of(pad(p), pad(y), jnp.array(mask), classes))
    return merged(states)


CASES = {
    "binary": (np.array([0, 1, 1, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1]),
               np.array([0, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1])),
    "always 0": (np.zeros(16, int), np.array([0, 1] * 8)),
    "always 1": (np.ones(16, int), np.array([0, 1] * 8)),
    "one class and right": (np.zeros(16, int), np.zeros(16, int)),
    "perfect": (np.array([0, 1] * 8), np.array([0, 1] * 8)),
    "inverted": (np.array([1, 0] * 8), np.array([0, 1] * 8)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_confusion_gives_scikit_learns_accuracy_f1_and_mcc(case):
    predictions, labels = CASES[case]
    state = confusion(predictions, labels, 2)
    np.testing.assert_array_equal(
        state.counts, confusion_matrix(labels, predictions, labels=[0, 1])
    )
    assert state.accuracy() == pytest.approx(accuracy_score(labels, predictions))
    f1 = functools.partial(f1_score, labels, predictions, zero_division=0)
    assert state.f1() == pytest.approx(f1())
    assert state.f1(positive=0) == pytest.approx(f1(pos_label=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one class only: scikit-learn warns and gives 0
        assert state.matthews() == pytest.approx(matthews_corrcoef(labels, predictions))


@pytest.mark.parametrize("seed", range(5))
def test_of_several_classes_some_of_which_never_occur(seed):
    rng = np.random.default_rng(seed)
    predictions, labels = rng.choice([0, 2, 3], 40), rng.choice([0, 1, 3], 40)  # 4 is nowhere
    state = confusion(predictions, labels, 5)
    expected = f1_score(labels, predictions, average="macro", zero_division=0)
    assert state.macro_f1() == pytest.approx(expected)
    assert state.matthews() == pytest.approx(matthews_corrcoef(labels, predictions))
    assert np.isnan(state.f1_by_class()[4])


def test_counts_stay_exact_beyond_what_float32_counts():
    one = on_host(Confusion(jnp.array([[2.0**24, 0.0], [0.0, 0.0]])))
    assert (one + on_host(Confusion(jnp.array([[1.0, 0.0], [0.0, 0.0]])))).counts[0, 0] == 2**24 + 1
    mean = on_host(Mean(jnp.float32(2**24), jnp.float32(2**24))) + on_host(Mean(1.0, 1.0))
    assert mean.compute() == 1.0 and mean.count == 2**24 + 1
    assert isinstance(mean.compute(), np.float64)


def pairs(x, y, cuts):
    for a, b in zip(np.split(x, cuts), np.split(y, cuts), strict=True):
        mask = np.arange(len(a) + 2) < len(a)
        pad = lambda v: jnp.array(np.append(v, [np.nan, 7.0]), jnp.float32)  # noqa: E731
        yield pad(a), pad(b), jnp.array(mask)


numbers = st.lists(
    st.tuples(st.integers(-40, 40), st.integers(0, 20)), min_size=2, max_size=40
)  # ties are frequent


@settings(max_examples=60, deadline=None)
@given(numbers, st.integers(0, 40), st.integers(0, 40))
def test_correlations_are_scipys_however_the_rows_are_cut(rows, first, second):
    x, y = (np.array(column) / 4 for column in zip(*rows, strict=True))
    cuts = sorted((min(first, len(x)), min(second, len(x))))
    moments = merged(Moments.of(*each) for each in pairs(x, y, cuts))
    collected = merged(Collected.of(*each) for each in pairs(x, y, cuts))
    constant = len(set(x)) < 2 or len(set(y)) < 2
    if constant:  # scipy warns and gives nan
        assert np.isnan(moments.compute()) and np.isnan(collected.spearman())
        return
    np.testing.assert_allclose(moments.compute(), stats.pearsonr(x, y)[0], atol=2e-5)
    np.testing.assert_allclose(collected.spearman(), stats.spearmanr(x, y)[0], atol=1e-12)


def test_a_constant_that_float32_does_not_hold_exactly_has_no_correlation():
    """0.1 is rounded, and the mean of 300 of them is another number."""
    x, y = np.full(300, 0.1), np.arange(300.0)
    state = merged(Moments.of(*each) for each in pairs(x, y, (7, 110)))
    assert np.isnan(state.compute())


def test_pearson_survives_a_mean_far_from_zero():
    """Sums of squares would cancel in float32; centred moments do not."""
    rng = np.random.default_rng(0)
    x = 4096 + rng.normal(size=500)
    y = x + rng.normal(size=500)
    x, y = (np.float32(v).astype(float) for v in (x, y))
    state = merged(Moments.of(*each) for each in pairs(x, y, (100, 350)))
    np.testing.assert_allclose(state.compute(), stats.pearsonr(x, y)[0], atol=1e-4)


def test_ranks_are_scipys_with_ties():
    values = np.array([3.0, 1.0, 3.0, 2.0, 2.0, 2.0, -1.0])
    np.testing.assert_array_equal(ranks(values), stats.rankdata(values))


@pytest.mark.parametrize("kind", [Moments, Confusion])
def test_states_of_devices_merge_into_that_of_all_rows(kind):
    devices = jax.local_device_count()
    assert devices == 8
    rng = np.random.default_rng(1)
    if kind is Confusion:
        x, y = rng.integers(0, 3, (devices, 5)), rng.integers(0, 3, (devices, 5))
        of = functools.partial(Confusion.of, classes=3)
    else:
        x, y = rng.normal(size=(2, devices, 5)).astype(np.float32)
        of = Moments.of
    mask = np.arange(40).reshape(devices, 5) % 7 != 0
    apart = merge_stacked(jax.pmap(of)(x, y, mask))
    whole = on_host(of(jnp.array(x.ravel()), jnp.array(y.ravel()), jnp.array(mask.ravel())))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), apart, whole)
