"""First choices against numpy and scikit-learn, among ties too."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from jaxkd.metrics import predictions as metrics


@pytest.mark.parametrize("shape", [(7, 50), (2, 3, 11), (5,)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_first_choice_is_argmax_and_ties_go_to_the_lowest_id(shape, dtype):
    logits = jnp.round(jax.random.normal(jax.random.key(0), shape)).astype(dtype)  # many ties
    result = jax.jit(metrics.first_choice)(logits)
    chex.assert_trees_all_equal(result, np.argmax(np.asarray(logits), -1).astype(np.int32))


def test_accuracy_and_agreement_are_shares_of_the_counted_positions():
    rng = np.random.default_rng(0)
    student, teacher = (rng.integers(0, 4, (40, 5)).astype(np.float32) for _ in range(2))
    labels, mask = rng.integers(0, 5, 40), rng.random(40) < 0.6
    first, of_teacher = (scores.argmax(-1)[mask] for scores in (student, teacher))
    result = metrics.accuracy(jnp.array(student), jnp.array(labels))[mask].mean()
    np.testing.assert_allclose(result, accuracy_score(labels[mask], first), rtol=1e-6)
    result = metrics.agreement(jnp.array(student), jnp.array(teacher))[mask].mean()
    np.testing.assert_allclose(result, accuracy_score(of_teacher, first), rtol=1e-6)


@pytest.mark.parametrize("top", [1, 2, 5])
def test_accuracy_among_the_likeliest_is_sklearns(top):
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(60, 9)).astype(np.float32), rng.integers(0, 9, 60)
    result = metrics.accuracy(jnp.array(logits), jnp.array(labels), top=top).mean()
    expected = top_k_accuracy_score(labels, logits, k=top, labels=range(9))
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("top", [1, 2, 3])
def test_among_equals_the_lower_ids_are_the_likelier(top):
    """Else a model that says nothing would have the first five of everything right."""
    logits = jnp.zeros((4, 4))
    result = metrics.accuracy(logits, jnp.arange(4), top=top)
    np.testing.assert_array_equal(result, np.arange(4) < top)


@pytest.mark.parametrize("top", [1, 5])
def test_a_model_that_says_nan_is_never_right(top):
    assert metrics.accuracy(jnp.full((3, 9), jnp.nan), jnp.arange(3) + 1, top=top).sum() == 0
