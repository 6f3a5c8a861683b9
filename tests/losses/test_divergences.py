"""Divergences against scipy, torch and closed forms; their limits, bounds and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from jaxkd import losses
from tests.losses.test_losses import OF_LOGITS, logits

STUDENT, TEACHER = logits(0), logits(1)
Q, P = (np.asarray(jax.nn.softmax(z), np.float64) for z in (STUDENT, TEACHER))


def kl(a, b):
    return rel_entr(a, b).sum(-1)


def test_each_is_its_definition():
    actual = {
        "reverse": losses.reverse_kl(STUDENT, TEACHER),
        "even": losses.jensen_shannon(STUDENT, TEACHER),
        "uneven": losses.jensen_shannon(STUDENT, TEACHER, beta=0.3),
        "skewed": losses.skewed_kl(STUDENT, TEACHER, alpha=0.2),
        "skewed reverse": losses.skewed_reverse_kl(STUDENT, TEACHER, alpha=0.2),
        "variation": losses.total_variation(STUDENT, TEACHER),
        "cross-entropy": losses.soft_cross_entropy(STUDENT, TEACHER),
    }
    uneven = 0.3 * P + 0.7 * Q
    expected = {
        "reverse": kl(Q, P),
        "even": jensenshannon(P, Q, axis=-1) ** 2,
        "uneven": 0.3 * kl(P, uneven) + 0.7 * kl(Q, uneven),
        "skewed": kl(P, 0.2 * P + 0.8 * Q),
        "skewed reverse": kl(Q, 0.8 * P + 0.2 * Q),
        "variation": np.abs(P - Q).sum(-1) / 2,
        "cross-entropy": -(P * np.log(Q)).sum(-1),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, err_msg=name)


def test_reverse_kl_is_torchs_with_the_roles_swapped():
    log_p = torch.log_softmax(torch.tensor(np.array(TEACHER)) / 3, -1)
    q = torch.softmax(torch.tensor(np.array(STUDENT)) / 3, -1)
    expected = 9 * torch.nn.functional.kl_div(log_p, q, reduction="none").sum(-1)
    actual = losses.reverse_kl(STUDENT, TEACHER, temperature=3.0)
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-5)


def test_jensen_shannon_normalised_goes_to_the_two_kls_and_plain_goes_to_zero():
    """Trap 3: the plain form is 1000 times smaller at beta = 0.001 than the KL at 0."""
    forward, reverse = kl(P, Q), kl(Q, P)
    low, high = (
        losses.jensen_shannon(STUDENT, TEACHER, beta=beta, normalised=True)
        for beta in (1e-3, 1 - 1e-3)
    )
    np.testing.assert_allclose(low, forward, rtol=2e-2)
    np.testing.assert_allclose(high, reverse, rtol=2e-2)
    plain = losses.jensen_shannon(STUDENT, TEACHER, beta=1e-3)
    np.testing.assert_allclose(plain, 1e-3 * (1 - 1e-3) * low, rtol=1e-5)


def test_adaptive_kl_weighs_by_where_the_gap_is():
    # Head of the first row: 0.6 alone; of the second: 0.4 and 0.3.
    p = np.array([[0.6, 0.3, 0.1], [0.4, 0.3, 0.3]])
    q = np.array([[0.5, 0.3, 0.2], [0.5, 0.1, 0.4]])
    gap = np.abs(p - q)
    share = np.array([gap[0, 0], gap[1, 0] + gap[1, 1]]) / gap.sum(-1)
    expected = share * kl(p, q) + (1 - share) * kl(q, p)
    actual = losses.adaptive_kl(jnp.log(jnp.array(q)), jnp.log(jnp.array(p)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_the_gradient_of_soft_cross_entropy_is_that_of_soft_targets():
    both = (losses.soft_cross_entropy, losses.soft_targets)
    actual, expected = (
        jax.grad(lambda z, loss=loss: loss(z, TEACHER, temperature=2.0).sum())(STUDENT)
        for loss in both
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OF_LOGITS)
def test_gradients_are_finite_differences(name):
    if name != "adaptive_kl":  # whose weights are not differentiated
        loss = OF_LOGITS[name]
        check_grads(lambda z: loss(jnp.asarray(z), TEACHER), (STUDENT,), 1, ["rev"], rtol=2e-2)


@pytest.mark.parametrize("name", OF_LOGITS)
def test_at_equality_the_gradient_is_zero_and_far_apart_it_is_finite(name):
    gradient = jax.grad(lambda z, t: OF_LOGITS[name](z, t).sum())
    np.testing.assert_allclose(gradient(TEACHER, TEACHER), 0, atol=1e-6)
    far = 200.0 * STUDENT
    assert np.isfinite(gradient(far, -far)).all()
    assert np.isfinite(OF_LOGITS[name](far, -far)).all()


@pytest.mark.parametrize("name", [name for name in OF_LOGITS if name != "soft_targets"])
def test_temperature_keeps_the_gradients_scale(name):
    """Trap 1, for every divergence: near-uniform logits, gradient alike at every temperature."""
    loss = {
        "reverse_kl": losses.reverse_kl,
        "jensen_shannon": losses.jensen_shannon,
        "jensen_shannon, normalised": lambda s, t, **k: losses.jensen_shannon(
            s, t, normalised=True, **k
        ),
        "skewed_kl": losses.skewed_kl,
        "skewed_reverse_kl": losses.skewed_reverse_kl,
        "adaptive_kl": losses.adaptive_kl,
        "total_variation": losses.total_variation,
    }[name]
    near = 1e-2 * STUDENT, 1e-2 * TEACHER
    norms = [
        float(
            jnp.linalg.norm(jax.grad(lambda z, t=t: loss(z, near[1], temperature=t).sum())(near[0]))
        )
        for t in (1.0, 2.0, 4.0, 8.0)
    ]
    np.testing.assert_allclose(norms, norms[0], rtol=3e-2)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: losses.jensen_shannon(STUDENT, TEACHER, beta=0.0), "beta is 0.0; it lies"),
        (lambda: losses.skewed_kl(STUDENT, TEACHER, alpha=1.0), "alpha is 1.0; it lies"),
        (lambda: losses.adaptive_kl(STUDENT, TEACHER, head=0.0), "head is 0.0"),
        (lambda: losses.reverse_kl(STUDENT, TEACHER, temperature=0.0), "temperature is 0.0"),
    ],
)
def test_values_without_meaning_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
