"""Squared error to labels and to a teacher: by hand, masked, and minimised by the step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd.core.batch import Batch
from jaxkd.core.outputs import Outputs
from jaxkd.distil import objective
from jaxkd.distil.step import initial_state, make_step
from jaxkd.distil.terms import Ramp, SquaredError
from jaxkd.models import families
from tests.models import tiny

STUDENT = Outputs(jnp.array([[1.0], [3.0], [jnp.nan]]), ())
TEACHER = Outputs(jnp.array([[2.0], [0.0], [5.0]]), ())
BATCH = Batch(
    tokens=jnp.ones((3, 2), jnp.int32), mask=jnp.ones((3, 2), bool),
    targets=jnp.array([0.5, 5.0, 0.0]), target_mask=jnp.array([True, True, False]),
)  # fmt: skip


def test_the_error_is_that_to_the_label_or_to_the_teachers_score_of_rows_that_count():
    """0.5^2 + 2^2; 1^2 + 3^2; the third row is nan and does not count."""
    assert SquaredError().total(STUDENT, TEACHER, BATCH) == 0.25 + 4.0
    assert SquaredError(target="teacher").total(STUDENT, TEACHER, BATCH) == 1.0 + 9.0
    assert SquaredError().count(BATCH) == 2


def test_what_cannot_be_minimised_is_refused():
    with pytest.raises(ValueError, match="terms.mse.target='label'.*mean 'labels'"):
        objective.check({"mse": SquaredError(target="label")})
    with pytest.raises(ValueError, match="needs a teacher"):
        SquaredError(target="teacher").total(STUDENT, None, BATCH)
    with pytest.raises(ValueError, match="weight"):
        objective.check({"mse": SquaredError(weight=-1.0)})
    objective.check({"mse": SquaredError(ramps={"weight": Ramp((0, 9), (0.0, 1.0))})})
    objective.check_stored({"mse": SquaredError(target="teacher")}, "scores")


def test_a_student_learns_its_teachers_scores():
    config = tiny.config(head="sequence_classification", labels=("score",))
    model = families.build(config)
    drawn = tiny.batch(seed=0)
    rows = len(drawn.tokens)
    batch = Batch(
        tokens=drawn.tokens, mask=drawn.mask, targets=jnp.linspace(0.0, 5.0, rows),
        target_mask=jnp.ones(rows, bool),
    )  # fmt: skip
    terms = {"labels": SquaredError(), "teacher": SquaredError(weight=0.5, target="teacher")}
    optimiser = optax.adam(3e-3)
    step = jax.jit(make_step(model, terms, optimiser, seed=0, teacher=model))
    state, teacher, losses = initial_state(model.init(0), optimiser), model.init(1), []
    for _ in range(40):
        state, means = step(state, teacher, batch)
        losses.append({name: float(mean.compute()) for name, mean in means.items()})
    first, last = losses[0], losses[-1]
    expected = first["labels"] + 0.5 * first["teacher"]
    np.testing.assert_allclose(first["loss"], expected, rtol=1e-5)
    assert last["loss"] < 0.7 * first["loss"]
