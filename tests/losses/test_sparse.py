"""Losses against a teacher of whom some tokens are known: bounds, identities, and the traps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses
from jaxkd.core.outputs import Projection
from jaxkd.core.stored_targets import Draws, TopK
from jaxkd.distil.terms import HardLabels, SoftTargets
from tests.losses.test_losses import logits

STUDENT, TEACHER = logits(0), logits(1)
LOG_P = jax.nn.log_softmax(TEACHER)
SIZE = TEACHER.shape[-1]


def top(k):
    values, ids = jax.lax.top_k(LOG_P, k)
    return ids, with_tail(values)


def with_tail(log_p):
    p = np.exp(np.asarray(log_p, np.float64))
    rest = np.log(np.maximum(1 - p.sum(-1, keepdims=True), 1e-30))
    return jnp.concatenate([log_p, jnp.asarray(rest, jnp.float32)], -1)


def test_with_every_token_known_it_is_the_kl():
    actual = losses.top_k_kl(STUDENT, *top(SIZE))
    np.testing.assert_allclose(actual, losses.soft_targets(STUDENT, TEACHER), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", range(1, SIZE))
def test_it_is_never_above_the_kl_and_zero_where_both_agree(k):
    actual = losses.top_k_kl(STUDENT, *top(k))
    whole = losses.soft_targets(STUDENT, TEACHER)
    assert (np.asarray(actual) <= np.asarray(whole) + 1e-5).all() and (np.asarray(actual) > 0).all()
    np.testing.assert_allclose(losses.top_k_kl(TEACHER, *top(k)), 0, atol=1e-5)


def test_probability_outside_the_known_tokens_is_seen():
    """Trap 10: renormalised over the k tokens this student would be perfect."""
    teacher = jnp.log(jnp.array([[0.6, 0.3, 0.05, 0.05]]))
    student = jnp.log(jnp.array([[0.4, 0.2, 0.2, 0.2]]))
    ids, log_p = jnp.array([[0, 1]]), with_tail(teacher[:, :2])
    by_hand = 0.6 * np.log(1.5) + 0.3 * np.log(1.5) + 0.1 * np.log(0.1 / 0.4)
    np.testing.assert_allclose(losses.top_k_kl(student, ids, log_p), [by_hand], rtol=1e-5)
    # Its tail is spread like the teacher's, so nothing is lost.
    np.testing.assert_allclose(losses.soft_targets(student, teacher), [by_hand], rtol=1e-5)


def test_draws_are_in_the_mean_the_cross_entropy_and_so_is_their_gradient():
    """Every draw there is, weighted by its probability: an enumeration, no sampling error."""
    p = np.exp(np.asarray(LOG_P, np.float64))

    def mean_of(z):
        ids = jnp.broadcast_to(jnp.arange(SIZE)[:, None, None], (SIZE, len(z), 1))
        each = jax.vmap(lambda ids: losses.sampled_cross_entropy(z, ids))(ids)  # [V, B]
        return jnp.sum(each * p.T)

    np.testing.assert_allclose(
        mean_of(STUDENT), losses.soft_cross_entropy(STUDENT, TEACHER).sum(), rtol=1e-5
    )
    actual, expected = (
        jax.grad(f)(STUDENT)
        for f in (mean_of, lambda z: losses.soft_cross_entropy(z, TEACHER).sum())
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_gradients_are_finite_where_the_tail_is_nothing():
    certain = jnp.array([[50.0, 0.0, 0.0, 0.0]])
    ids, log_p = jnp.array([[0, 1]]), jnp.log(jnp.array([[1.0, 1e-9, 1e-12]]))
    gradient = jax.grad(lambda z: losses.top_k_kl(z, ids, log_p).sum())
    for student in (certain, -certain, 0 * certain):
        assert np.isfinite(gradient(student)).all()


@pytest.mark.parametrize("kind", ["top_k", "draws"])
def test_fused_with_the_head_it_is_the_same(kind):
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(3, 4, 6)), jnp.float32)
    student = Projection(features, jnp.asarray(rng.normal(size=(SIZE, 6)), jnp.float32))
    teacher_logits = jnp.asarray(rng.normal(size=(3, 4, SIZE)), jnp.float32)
    values, ids = jax.lax.top_k(jax.nn.log_softmax(teacher_logits), 3)
    sparse = TopK(ids, with_tail(values)) if kind == "top_k" else Draws(ids)
    labels = jnp.asarray(rng.integers(SIZE, size=(3, 4)))
    mask = jnp.asarray(rng.random((3, 4)) < 0.7)
    terms = {"kd": SoftTargets(), "ce": HardLabels()}

    def by_chunks(student):
        def of(z, t, y):
            return {name: term.values(z, t, y) for name, term in terms.items()}

        return losses.fused(of, {"kd": 1.0, "ce": 0.5}, student, sparse, labels, mask, chunk=5)[0]

    def dense(student):
        z = student.logits()
        each = terms["kd"].values(z, sparse, labels) + 0.5 * terms["ce"].values(z, None, labels)
        return jnp.sum(jnp.where(mask, each, 0.0))

    actual, expected = (jax.value_and_grad(f)(student) for f in (by_chunks, dense))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), actual, expected
    )
