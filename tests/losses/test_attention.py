"""Losses on attention, relations and similarity, against torch, numpy and what they must ignore."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxkd import losses

MASK = jnp.array([[True] * 6, [True] * 4 + [False] * 2])


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def maps(seed):
    scores = jnp.where(MASK[:, None, None], normal(seed, 2, 3, 6, 6), -jnp.inf)
    return jax.nn.softmax(scores)


def test_attention_kl_is_torchs_and_zero_only_at_equality():
    student, teacher = maps(0), maps(1)
    q, p = (torch.tensor(np.array(x)) for x in (student, teacher))
    expected = torch.where(p > 0, p * (p.log() - q.log()), torch.zeros(())).nan_to_num().sum(-1)
    actual = losses.attention_kl(student, teacher)
    chex.assert_shape(actual, (2, 3, 6))
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(losses.attention_kl(teacher, teacher), 0, atol=1e-6)
    assert actual.min() > 1e-3
    gradient = jax.grad(lambda z: losses.attention_kl(jax.nn.softmax(z), teacher).sum())(
        jnp.where(MASK[:, None, None], normal(0, 2, 3, 6, 6), -jnp.inf)
    )
    chex.assert_tree_all_finite(jnp.where(MASK[:, None, None], gradient, 0.0))


def test_attention_kl_and_its_gradient_are_finite_where_a_weight_underflows():
    scores = jnp.array([[[[0.0, 200.0]]]])  # e^-200 is 0 in float32
    teacher = jnp.array([[[[0.5, 0.5]]]])

    def loss(scores):
        return losses.attention_kl(jax.nn.softmax(scores), teacher).sum()

    value, gradient = jax.value_and_grad(loss)(scores)
    chex.assert_tree_all_finite((value, gradient))
    # 0.5 log(0.5 / tiny) + 0.5 log(0.5 / 1)
    tiny = np.finfo(np.float32).tiny
    np.testing.assert_allclose(value, 0.5 * np.log(0.5 / tiny) + 0.5 * np.log(0.5), rtol=1e-6)


def test_attention_squared_counts_keys_that_count():
    student, teacher = maps(0), maps(1)
    actual = losses.attention_squared(student, teacher, MASK)
    gap = (np.array(student) - np.array(teacher)) ** 2
    expected = np.stack([gap[0].mean(-1), gap[1, ..., :4].mean(-1)])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_relations_are_written_out_and_widths_may_differ():
    student = normal(0, 2, 6, 8), normal(1, 2, 6, 8)
    teacher = normal(2, 2, 6, 12), normal(3, 2, 6, 12)
    actual = losses.relation_kl(student, teacher, MASK, heads=2)

    def relation(pair, row, head, width):
        a, b = (np.array(x[row, :, head * width : (head + 1) * width], float) for x in pair)
        keys = np.array(MASK[row])
        scores = (a @ b.T / np.sqrt(width))[:, keys]
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        return scores / scores.sum(-1, keepdims=True)

    for row in range(2):
        for head in range(2):
            p, q = relation(teacher, row, head, 6), relation(student, row, head, 4)
            expected = (p * np.log(p / q)).sum(-1)
            np.testing.assert_allclose(actual[row, head], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(losses.relation_kl(teacher, teacher, MASK, heads=3), 0, atol=1e-6)
    with pytest.raises(ValueError, match="a width of 8 does not divide into 3"):
        losses.relation_kl(student, teacher, MASK, heads=3)


def test_padding_changes_no_relation_and_no_gradient():
    student, teacher = normal(0, 2, 6, 8), normal(1, 2, 6, 8)
    nonsense = jnp.where(MASK[..., None], 0.0, 1e3)

    def mean(student, teacher):
        values = losses.relation_kl((student, student), (teacher, teacher), MASK, heads=2)
        return jnp.sum(jnp.where(MASK[:, None], values, 0.0))

    plain = jax.value_and_grad(mean)(student, teacher)
    padded = jax.value_and_grad(mean)(student + nonsense, teacher - nonsense)
    np.testing.assert_allclose(padded[0], plain[0], rtol=1e-5)
    np.testing.assert_allclose(padded[1], plain[1], atol=1e-5)
    empty = jnp.zeros_like(MASK).at[0].set(True)
    value_and_gradient = jax.value_and_grad(
        lambda s: losses.relation_kl((s, s), (teacher, teacher), empty, heads=2).sum()
    )(student)
    chex.assert_tree_all_finite(value_and_gradient)


def test_cka_ignores_rotation_scale_and_shift_and_padding():
    x, y = normal(0, 20, 5), normal(1, 20, 7)
    mask = jnp.arange(20) < 16
    rotation = jnp.linalg.qr(normal(2, 5, 5))[0]
    same = losses.cka_distance(3.0 * x @ rotation + 2.0, x, mask)
    np.testing.assert_allclose(same, 0, atol=1e-5)
    actual = losses.cka_distance(x, y, mask)
    a, b = (np.array(z[:16], float) - np.array(z[:16], float).mean(0) for z in (x, y))
    norm = np.linalg.norm
    expected = 1 - norm(a.T @ b) ** 2 / (norm(a.T @ a) * norm(b.T @ b))
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
    nonsense = jnp.where(mask[:, None], x, 1e4)
    np.testing.assert_allclose(losses.cka_distance(nonsense, y, mask), actual, rtol=1e-5)


def test_contrastive_is_torchs_cross_entropy_over_the_rows_that_count():
    student, teacher = normal(0, 8, 5), normal(1, 8, 5)
    mask = jnp.arange(8) < 6
    actual = losses.contrastive(student, teacher, mask, temperature=0.2)
    a, b = (
        torch.nn.functional.normalize(torch.tensor(np.array(x[:6])), dim=-1)
        for x in (student, teacher)
    )
    expected = torch.nn.functional.cross_entropy(a @ b.T / 0.2, torch.arange(6), reduction="none")
    np.testing.assert_allclose(actual[:6], expected.numpy(), rtol=1e-4)
    assert losses.contrastive(teacher, teacher, mask, temperature=0.2)[:6].max() < actual[:6].max()
    with pytest.raises(ValueError, match="temperature is 0"):
        losses.contrastive(student, teacher, mask, temperature=0.0)


def test_squared_distance_is_torchs():
    student, teacher = normal(0, 4, 5), normal(1, 4, 5)
    expected = torch.nn.functional.mse_loss(
        torch.tensor(np.array(student)), torch.tensor(np.array(teacher)), reduction="none"
    ).mean(-1)
    np.testing.assert_allclose(losses.squared_distance(student, teacher), expected, rtol=1e-5)
