"""CTC against enumeration of paths and against torch; and what a teacher's hypotheses are worth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxkd import losses
from jaxkd.core.batch import Batch
from jaxkd.core.outputs import Outputs
from jaxkd.core.stored_targets import NBest
from jaxkd.decode.ctc import n_best
from jaxkd.distil.terms import CtcHypotheses, CtcLabels, FrameTargets, SoftTargets
from jaxkd.metrics.predictions import spelt_right
from tests.decode.test_ctc import PLACES, enumerated, places


def ragged(seed=0):
    """Logits [4, 7, 6], places 7, 5, 3, 0 and labels that fit, the last row empty."""
    rng = np.random.default_rng(seed)
    mask = np.arange(7) < np.array([7, 5, 3, 0])[:, None]
    labels = np.array([[1, 2, 2, 5, 0, 0, 0], [3, 3, 0, 0, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0],
                       [0, 0, 0, 0, 0, 0, 0]])  # fmt: skip
    return jnp.array(rng.normal(size=(4, 7, 6)) * 2, jnp.float32), mask, labels, labels > 0


def test_it_is_that_of_torch_and_so_is_its_gradient():
    logits, mask, labels, label_mask = ragged()

    def total(logits):
        return losses.ctc(logits, jnp.array(mask), jnp.array(labels), jnp.array(label_mask)).sum()

    actual, gradient = jax.value_and_grad(total)(logits)
    torch_logits = torch.tensor(np.array(logits), requires_grad=True)
    expected = torch.nn.functional.ctc_loss(
        torch_logits.log_softmax(-1).transpose(0, 1),
        torch.tensor(labels), torch.tensor(mask.sum(1)), torch.tensor(label_mask.sum(1)),
        blank=0, reduction="sum",
    )  # fmt: skip
    expected.backward()
    np.testing.assert_allclose(actual, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, torch_logits.grad.numpy(), atol=1e-5)


def test_a_row_without_places_costs_nothing():
    logits, mask, labels, label_mask = ragged()
    each = losses.ctc(logits, jnp.array(mask), jnp.array(labels), jnp.array(label_mask))
    assert each[3] == 0 and (each[:3] > 0).all()


def test_it_is_the_sum_over_all_paths():
    log_p = places()
    for spelling, value in enumerated(log_p)[:10]:
        labels = np.zeros((1, PLACES), int)
        labels[0, : len(spelling)] = spelling
        labels = jnp.array(labels)
        actual = losses.ctc(jnp.array(log_p[None]), jnp.ones((1, PLACES), bool), labels, labels > 0)
        np.testing.assert_allclose(-actual[0], value, rtol=1e-5)


def stored_hypotheses(log_p, n):
    """Outputs of a student, and a batch with a teacher's n best hypotheses."""
    hypotheses = n_best(log_p, width=200, n=n)
    ids = np.zeros((1, n, PLACES), np.int32)
    values = np.full((1, n), np.finfo(np.float32).min, np.float32)
    for i, (spelling, value) in enumerate(hypotheses):
        ids[0, i, : len(spelling)], values[0, i] = spelling, value
    mask = jnp.ones((1, PLACES), bool)
    labels = jnp.zeros((1, PLACES), jnp.int32).at[0, 0].set(1)
    student = jnp.array(places(seed=7), jnp.float32)[None]
    batch = Batch(labels, mask, targets=labels, target_mask=labels > 0,
                  stored_targets=NBest(jnp.array(ids), jnp.array(values)))  # fmt: skip
    return Outputs(student, ()), batch, hypotheses


@pytest.mark.parametrize("n", [1, 3, 200])
def test_hypotheses_cost_as_much_as_each_costs_weighted_by_probability(n):
    """n = 200: more than there are; those that lack cost nothing."""
    output, batch, hypotheses = stored_hypotheses(places(), n)
    log_p_of = dict(enumerated(places(seed=7)))
    share = np.exp([v for _, v in hypotheses])
    share /= share.sum()
    expected = -sum(
        s * log_p_of[spelling] for s, (spelling, _) in zip(share, hypotheses, strict=True)
    )
    actual = CtcHypotheses().total(output, None, batch)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert np.isfinite(
        jax.grad(lambda x: CtcHypotheses().total(Outputs(x, ()), None, batch))(output.logits)
    ).all()


def test_with_all_hypotheses_it_is_least_where_student_and_teacher_agree():
    """A cross-entropy: its gradient vanishes there, whatever the alignment may be elsewhere."""
    _, batch, hypotheses = stored_hypotheses(places(), 200)
    assert abs(sum(np.exp(v) for _, v in hypotheses) - 1) < 1e-6
    same = jnp.array(places(), jnp.float32)[None]
    gradient = jax.grad(lambda x: CtcHypotheses().total(Outputs(x, ()), None, batch))(same)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)
    one = CtcHypotheses().total(Outputs(same, ()), None, batch)
    other = CtcHypotheses().total(stored_hypotheses(places(), 200)[0], None, batch)
    assert one < other


def test_frames_are_soft_targets_at_every_place():
    """Positions without a label count too: the mask is that of positions, not of labels."""
    logits, mask, labels, label_mask = ragged()
    teacher = Outputs(ragged(seed=1)[0], ())
    labels, mask, label_mask = (jnp.array(x) for x in (labels, mask, label_mask))
    batch = Batch(labels, mask, targets=labels, target_mask=label_mask)
    actual = FrameTargets(temperature=2.0).total(Outputs(logits, ()), teacher, batch)
    as_targets = Batch(labels, mask, targets=labels, target_mask=mask)
    expected = SoftTargets(temperature=2.0).total(Outputs(logits, ()), teacher, as_targets)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert FrameTargets().count(batch) == mask.sum() != label_mask.sum()
    assert CtcLabels().count(batch) == label_mask.sum()
    with pytest.raises(ValueError, match="x.temperature is 0.0; it is above 0"):
        FrameTargets(temperature=0.0).check("x")


def test_spelt_right_is_what_the_likeliest_path_spells():
    from jaxkd.decode.ctc import collapsed

    rng = np.random.default_rng(0)
    mask = np.arange(6) < rng.integers(1, 7, (500, 1))
    logits = rng.normal(size=(500, 6, 3)).astype(np.float32)
    labels = np.zeros((500, 6), np.int32)
    for i in range(500):
        path = logits[i].argmax(1) if i % 3 else rng.integers(3, size=6)
        spelling = collapsed(path[mask[i]])
        labels[i, : len(spelling)] = spelling
    label_mask = jnp.array(labels > 0)
    actual = spelt_right(jnp.array(logits), jnp.array(mask), jnp.array(labels), label_mask)
    expected = [
        collapsed(row.argmax(1)[row_mask]) == label[label > 0].tolist()
        for row, row_mask, label in zip(logits, mask, labels, strict=True)
    ]
    np.testing.assert_array_equal(actual, expected)
    assert 0.5 < np.mean(expected) < 1
