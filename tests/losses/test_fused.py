"""The fused losses against the dense ones: values, gradients, memory, work."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses
from jaxkd.core.outputs import Projection

ROWS, LENGTH, WIDTH, TEACHERS = 3, 13, 8, 12
KINDS = {
    "forward_kl": losses.soft_targets,
    "reverse_kl": losses.reverse_kl,
    "jensen_shannon": functools.partial(losses.jensen_shannon, beta=0.3),
    "skewed_kl": losses.skewed_kl,
    "skewed_reverse_kl": losses.skewed_reverse_kl,
    "adaptive_kl": losses.adaptive_kl,
    "total_variation": losses.total_variation,
    "soft_cross_entropy": losses.soft_cross_entropy,
}


def setting(vocabulary=29, teacher_vocabulary=29, bias=True, dtype=jnp.float32):
    """A student and a teacher of other widths, labels, and a ragged mask with an empty row."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.array(rng.normal(size=shape), dtype)

    student = Projection(
        draw(ROWS, LENGTH, WIDTH), draw(vocabulary, WIDTH), draw(vocabulary) if bias else None
    )
    teacher = Projection(draw(ROWS, LENGTH, TEACHERS), 0.5 * draw(teacher_vocabulary, TEACHERS))
    labels = jnp.array(rng.integers(0, min(vocabulary, teacher_vocabulary), (ROWS, LENGTH)))
    mask = jnp.arange(LENGTH) < jnp.array([[LENGTH], [0], [6]])
    return student, teacher, labels, mask.at[0, 3].set(False)


def values_of(kind, temperature):
    def values(logits, teacher_logits, labels):
        student_part, teacher_part = losses.shared(logits, teacher_logits)
        return {
            "kd": KINDS[kind](student_part, teacher_part, temperature=temperature),
            "ce": losses.hard_labels(logits, labels),
        }

    return values


WEIGHTS = {"kd": 1.5, "ce": 0.25}


def dense(values, student, teacher, labels, mask):
    actual = values(student.logits(), teacher.logits(), labels)
    totals = {name: jnp.sum(jnp.where(mask, v, 0.0)) for name, v in actual.items()}
    return sum(WEIGHTS[name] * total for name, total in totals.items()), totals


def both(values, student, *rest, chunk=5):
    """(value, totals), gradient of the student: dense and fused."""
    ways = (
        functools.partial(dense, values),
        lambda *args: losses.fused(values, WEIGHTS, *args, chunk=chunk),
    )
    return [
        jax.jit(jax.value_and_grad(loss_function, has_aux=True))(student, *rest)
        for loss_function in ways
    ]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("kind", KINDS)
def test_fused_is_dense(kind, temperature):
    expected, actual = both(values_of(kind, temperature), *setting())
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected[1].matrix).max() > 0.1


@pytest.mark.parametrize("vocabulary, teacher_vocabulary", [(29, 23), (23, 29)])
@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_vocabularies_that_differ_by_padding(kind, vocabulary, teacher_vocabulary):
    expected, actual = both(
        values_of(kind, 2.0), *setting(vocabulary, teacher_vocabulary, bias=False)
    )
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 7, 39, 1000])
def test_the_chunk_changes_nothing(chunk):
    expected, actual = both(values_of("forward_kl", 2.0), *setting(), chunk=chunk)
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_nothing_counts():
    student, teacher, labels, mask = setting()
    _, ((loss, _), gradient) = both(
        values_of("forward_kl", 1.0), student, teacher, labels, jnp.zeros_like(mask)
    )
    assert loss == 0
    chex.assert_trees_all_equal(gradient, jax.tree.map(jnp.zeros_like, student))


def test_what_is_masked_may_be_anything():
    student, teacher, labels, mask = setting()
    spoilt = Projection(
        jnp.where(mask[..., None], student.features, jnp.nan), student.matrix, student.bias
    )
    values = values_of("jensen_shannon", 1.0)
    expected = both(values, student, teacher, labels, mask)[1]
    actual = both(values, spoilt, teacher, labels, mask)[1]
    chex.assert_trees_all_equal(actual, expected)


def test_the_gradient_follows_what_is_done_with_the_sum():
    """The chain rule: of the features' own inputs, and of a function of the sum."""
    student, teacher, labels, mask = setting()
    values = values_of("forward_kl", 2.0)

    def outer(loss_function, scale):
        moved = Projection(jnp.sin(scale * student.features), student.matrix, student.bias)
        return jnp.log(loss_function(moved, teacher, labels, mask)[0])

    expected = jax.grad(functools.partial(outer, functools.partial(dense, values)))(0.7)
    fused = functools.partial(losses.fused, values, WEIGHTS, chunk=5)
    np.testing.assert_allclose(jax.grad(functools.partial(outer, fused))(0.7), expected, rtol=1e-5)


def test_weights_have_a_gradient_and_totals_have_none():
    student, teacher, labels, mask = setting()
    values = values_of("forward_kl", 1.0)
    (_, totals), gradient = jax.value_and_grad(
        lambda weights: losses.fused(values, weights, student, teacher, labels, mask, chunk=5),
        has_aux=True,
    )(WEIGHTS)
    chex.assert_trees_all_close(gradient, totals, rtol=1e-6)
    nothing = jax.grad(
        lambda student: losses.fused(values, WEIGHTS, student, teacher, labels, mask)[1]["kd"]
    )(student)
    assert not np.any(nothing.matrix)


def test_the_teacher_does_not_learn():
    student, teacher, labels, mask = setting()
    values = values_of("reverse_kl", 1.0)
    gradient = jax.grad(
        lambda teacher_logits: losses.fused(values, WEIGHTS, student, teacher_logits, labels, mask)[
            0
        ]
    )(teacher)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("vocabulary, bias", [(29, True), (29, False), (64, True), (1000, False)])
def test_bfloat16_adds_up_in_float32(vocabulary, bias):
    """Against the dense loss of the same bfloat16 numbers, computed in float32."""
    student, teacher, labels, mask = setting(vocabulary, vocabulary, bias, dtype=jnp.bfloat16)
    values = values_of("forward_kl", 2.0)
    ((loss, _), gradient) = both(values, student, teacher, labels, mask)[1]
    full = jax.tree.map(lambda x: x.astype(jnp.float32), (student, teacher))
    (expected, _), exact = both(values, *full, labels, mask)[0]
    np.testing.assert_allclose(loss, expected, rtol=1e-3)
    assert gradient.features.dtype == gradient.matrix.dtype == jnp.bfloat16
    for name in ("features", "matrix", *["bias"] * bias):
        a, b = np.float32(getattr(gradient, name)), np.array(getattr(exact, name))
        assert np.linalg.norm(a - b) < 0.01 * np.linalg.norm(b), name


def memory(rows, vocabulary=4096, loss_function=losses.fused):
    """Bytes XLA keeps beside arguments and results of value and gradient."""

    def loss(student, teacher, labels, mask):
        values = values_of("jensen_shannon", 2.0)
        if loss_function is dense:
            return dense(values, student, teacher, labels, mask)[0]
        return loss_function(values, WEIGHTS, student, teacher, labels, mask, chunk=128)[0]

    def shaped(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype)

    student = Projection(shaped(rows, 32), shaped(vocabulary, 32))
    teacher = Projection(shaped(rows, 48), shaped(vocabulary, 48))
    lowered = jax.jit(jax.grad(loss)).lower(
        student, teacher, shaped(rows, dtype=jnp.int32), shaped(rows, dtype=bool)
    )
    return lowered.compile().memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_logits():
    few, many = memory(512), memory(4096)
    assert many - few < 3584 * 4 * 256  # features of some kind, not 3584 x 4096 logits
    assert memory(4096, loss_function=dense) > 8 * many


def test_it_is_checked():
    student, teacher, labels, mask = setting()
    with pytest.raises(ValueError, match="chunk is 0"):
        losses.fused(values_of("forward_kl", 1.0), WEIGHTS, student, teacher, labels, mask, chunk=0)
