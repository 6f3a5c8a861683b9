"""Every loss: what it is zero at, what it ignores, and that jit, eager and pmap agree."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from absl.testing import parameterized

from jaxkd import losses
from jaxkd.core.mean import Mean

LOGITS = (5, 7)  # positions, vocabulary


def logits(seed: int, shape=LOGITS, scale=2.0):
    return scale * jax.random.normal(jax.random.key(seed), shape)


LABELS = jnp.arange(5) % 7
OF_LOGITS = {
    "soft_targets": lambda s, t: losses.soft_targets(s, t, temperature=2.0),
    "reverse_kl": lambda s, t: losses.reverse_kl(s, t, temperature=2.0),
    "jensen_shannon": lambda s, t: losses.jensen_shannon(s, t, beta=0.3, temperature=2.0),
    "jensen_shannon, normalised": lambda s, t: losses.jensen_shannon(s, t, normalised=True),
    "skewed_kl": lambda s, t: losses.skewed_kl(s, t, temperature=2.0),
    "skewed_reverse_kl": lambda s, t: losses.skewed_reverse_kl(s, t, temperature=2.0),
    "adaptive_kl": lambda s, t: losses.adaptive_kl(s, t, temperature=2.0),
    "total_variation": lambda s, t: losses.total_variation(s, t, temperature=2.0),
}
DIVERGENCES = OF_LOGITS | {"cosine_distance": losses.cosine_distance}
ALL = DIVERGENCES | {"hard_labels": lambda s, t: losses.hard_labels(s, LABELS[: s.shape[0]])}
each_divergence = pytest.mark.parametrize("loss", DIVERGENCES.values(), ids=DIVERGENCES.keys())
each_loss = pytest.mark.parametrize("loss", ALL.values(), ids=ALL.keys())


@each_loss
def test_losses_are_not_negative(loss):
    for seed in range(20):
        values = loss(logits(seed), logits(seed + 100))
        chex.assert_shape(values, (5,))
        chex.assert_tree_all_finite(values)
        assert values.min() >= 0


@each_divergence
def test_divergences_are_zero_only_at_equality(loss):
    student, teacher = logits(0), logits(1)
    np.testing.assert_allclose(loss(teacher, teacher), 0, atol=1e-6)
    assert loss(student, teacher).min() > 1e-2


def test_soft_targets_match_torch_kl_in_its_direction():
    # torch's kl_div(log q, p) is KL(p || q), p the teacher: not symmetric, so a swap shows.
    student, teacher = logits(0), logits(1)
    for temperature in (0.5, 1.0, 4.0):
        log_q = torch.log_softmax(torch.tensor(np.array(student)) / temperature, -1)
        p = torch.softmax(torch.tensor(np.array(teacher)) / temperature, -1)
        expected = torch.nn.functional.kl_div(log_q, p, reduction="none").sum(-1)
        actual = losses.soft_targets(student, teacher, temperature=temperature)
        np.testing.assert_allclose(actual, temperature**2 * expected.numpy(), rtol=1e-5, atol=1e-6)


def test_soft_targets_of_two_points_by_hand():
    # p = (3/4, 1/4), q = (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.13081...
    teacher, student = jnp.log(jnp.array([[0.75, 0.25]])), jnp.zeros((1, 2))
    np.testing.assert_allclose(losses.soft_targets(student, teacher), [0.1308120], atol=1e-6)


def test_temperature_squared_keeps_the_gradient_scale():
    # Near-uniform logits: d/dz T^2 KL -> (z - y) / V for every T (Hinton et al., 2015, eq. 4).
    student, teacher = logits(0, scale=1e-2), logits(1, scale=1e-2)

    def norm(temperature):
        gradient = jax.grad(
            lambda z: losses.soft_targets(z, teacher, temperature=temperature).sum()
        )(student)
        return float(jnp.linalg.norm(gradient))

    norms = [norm(t) for t in (1.0, 2.0, 4.0, 8.0)]
    np.testing.assert_allclose(norms, norms[0], rtol=2e-2)


def test_hard_labels_match_torch():
    z = logits(0)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(np.array(z)), torch.tensor(np.array(LABELS)).long(), reduction="none"
    )
    np.testing.assert_allclose(losses.hard_labels(z, LABELS), expected.numpy(), rtol=1e-5)


def test_hard_labels_are_zero_only_for_a_certain_right_answer():
    right = jnp.where(jax.nn.one_hot(LABELS, 7, dtype=bool), 0.0, -jnp.inf)
    np.testing.assert_array_equal(losses.hard_labels(right, LABELS), 0)
    assert losses.hard_labels(logits(0), LABELS).min() > 1e-3


def test_cosine_distance_matches_torch():
    a, b = logits(0), logits(1)
    expected = 1 - torch.nn.functional.cosine_similarity(
        torch.tensor(np.array(a)), torch.tensor(np.array(b)), dim=-1
    )
    np.testing.assert_allclose(losses.cosine_distance(a, b), expected.numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", [*OF_LOGITS, "hard_labels"])
def test_losses_of_logits_ignore_a_shift(name):
    student, teacher = logits(0), logits(1)
    shifted = ALL[name](student + 100.0, teacher - 30.0)
    np.testing.assert_allclose(shifted, ALL[name](student, teacher), rtol=1e-4, atol=1e-5)


def test_cosine_distance_ignores_length():
    student, teacher = logits(0), logits(1)
    actual = losses.cosine_distance(7.0 * student, 0.1 * teacher)
    np.testing.assert_allclose(actual, losses.cosine_distance(student, teacher), rtol=1e-5)


@each_loss
def test_what_is_masked_changes_neither_loss_nor_gradient(loss):
    """Trap 4: padding trained the student. Appended rows of nonsense must not matter."""
    student, teacher = logits(0), logits(1)
    nonsense = jnp.full((3, 7), 1e4).at[:, 0].set(jnp.array([-1e4, 3.0, 0.0]))
    mask = jnp.arange(8) < 5

    def mean(student, padded):
        rows = jnp.concatenate([student, nonsense]) if padded else student
        against = jnp.concatenate([teacher, -nonsense]) if padded else teacher
        labels = jnp.resize(LABELS, len(rows))
        values = (
            losses.hard_labels(rows, labels) if loss is ALL["hard_labels"] else loss(rows, against)
        )
        return Mean.of(values, mask[: len(rows)]).compute()

    for padded, plain in zip(
        jax.value_and_grad(mean)(student, True),
        jax.value_and_grad(mean)(student, False),
        strict=True,
    ):
        np.testing.assert_allclose(padded, plain, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("loss", OF_LOGITS.values(), ids=OF_LOGITS.keys())
def test_padding_rows_of_the_vocabulary_have_no_weight(loss):
    """Trap 11: tokens that only the teacher's padded vocabulary has, at -inf in both."""
    student, teacher = logits(0), logits(1)
    padding = jnp.full((5, 3), -jnp.inf)

    def padded(z):
        return loss(
            jnp.concatenate([z, padding], -1), jnp.concatenate([teacher, padding], -1)
        ).sum()

    def plain(z):
        return loss(z, teacher).sum()

    for actual, expected in zip(
        jax.value_and_grad(padded)(student), jax.value_and_grad(plain)(student), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_equal_bfloat16_logits_have_no_divergence_under_jit():
    """Trap 9: the entropy-subtracted form gave negative KL for equal bfloat16 logits under jit."""
    z = logits(0, (64, 5003)).astype(jnp.bfloat16)
    assert jnp.abs(jax.jit(losses.soft_targets)(z, z)).max() == 0


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature is 0"):
        losses.soft_targets(logits(0), logits(1), temperature=0.0)


class Variants(chex.TestCase):
    """jit, eager and pmap compute the same."""

    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    @parameterized.named_parameters(*ALL.items())
    def test_variants_agree(self, loss):
        student, teacher = logits(0), logits(1)
        np.testing.assert_allclose(
            self.variant(functools.partial(loss))(student, teacher),
            np.asarray(loss(student, teacher)),
            rtol=1e-5,
            atol=1e-6,
        )


def test_rows_only_one_vocabulary_has_are_masked_out():
    student, teacher = logits(0, (5, 7)), logits(1, (5, 10))
    of_student, of_teacher = losses.shared(student, teacher)
    chex.assert_shape([of_student, of_teacher], (5, 7))
    masked = jnp.where(jnp.arange(10) < 7, teacher, -jnp.inf)
    padded = jnp.pad(student, ((0, 0), (0, 3)), constant_values=-jnp.inf)
    np.testing.assert_allclose(
        losses.soft_targets(of_student, of_teacher), losses.soft_targets(padded, masked), rtol=1e-5
    )
    zeros = jnp.pad(student, ((0, 0), (0, 3)))  # what would be wrong
    assert not np.allclose(
        losses.soft_targets(of_student, of_teacher), losses.soft_targets(zeros, teacher)
    )
    chex.assert_trees_all_equal(losses.shared(teacher, student), (of_teacher, of_student))
