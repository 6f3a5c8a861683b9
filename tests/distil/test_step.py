"""The step: the same result however the batch is split, and a teacher that never changes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd.core.batch import Batch
from jaxkd.core.names import matches
from jaxkd.core.tree import map_named, named
from jaxkd.distil import objective
from jaxkd.distil.step import initial_state, make_step
from jaxkd.distil.terms import CosineHidden, HardLabels, Ramp, SoftTargets
from jaxkd.models import families
from jaxkd.models.model import forward
from jaxkd.train import parallel
from tests.models import tiny

MODEL = families.build(tiny.config(layers=1))
TEACHER = families.build(tiny.config(layers=2))
PARAMS, TEACHER_PARAMS = MODEL.init(0), TEACHER.init(1)
TERMS = {
    "soft_targets": SoftTargets(weight=5.0, temperature=2.0),
    "mlm": HardLabels(weight=2.0),
    "cosine": CosineHidden(weight=1.0),
}


def stepped(batch, wrap=parallel.jitted, optimiser=None, steps=1, **options):
    """State and metrics after some steps on one batch."""
    optimiser = optimiser or optax.sgd(0.1)
    step = wrap(make_step(MODEL, TERMS, optimiser, seed=0, teacher=TEACHER, **options))
    state = initial_state(PARAMS, optimiser)
    for _ in range(steps):
        state, metrics = step(state, TEACHER_PARAMS, batch)
    return state, {name: float(mean.compute()) for name, mean in metrics.items()}


def plain_loss(params, batch):
    """The objective written out once more, on the whole batch, without Mean."""
    student, teacher = forward(MODEL, params, batch), forward(TEACHER, TEACHER_PARAMS, batch)
    p = jax.nn.softmax(teacher.logits / 2)
    kl = jnp.sum(p * (jnp.log(p) - jax.nn.log_softmax(student.logits / 2)), -1)
    nll = -jnp.take_along_axis(jax.nn.log_softmax(student.logits), batch.targets[..., None], -1)
    a, b = student.hidden[-1], teacher.hidden[-1]
    cosine = 1 - (a * b).sum(-1) / jnp.linalg.norm(a, axis=-1) / jnp.linalg.norm(b, axis=-1)
    at = batch.target_mask
    return (
        5 * 4 * (kl * at).sum() / at.sum()
        + 2 * (nll[..., 0] * at).sum() / at.sum()
        + (cosine * batch.mask).sum() / batch.mask.sum()
    )


def test_a_step_of_sgd_is_the_gradient_of_the_written_out_objective():
    batch = tiny.batch()
    state, metrics = stepped(batch)
    loss, gradient = jax.jit(jax.value_and_grad(plain_loss))(PARAMS, batch)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, PARAMS, gradient)
    chex.assert_trees_all_close(state.params, expected, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(gradient), rtol=1e-4)
    named = 5 * metrics["soft_targets"] + 2 * metrics["mlm"] + metrics["cosine"]
    np.testing.assert_allclose(metrics["loss"], named, rtol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_frozen_is_not_differentiated_and_the_rest_moves_alike(accumulate):
    batch, frozen = tiny.batch(), ("embed/*", "blocks/0/attention/*")
    # SGD, since Adam makes much of a gradient that is zero but for rounding.
    labels = map_named(lambda name, _: matches(name, frozen), PARAMS)
    optimiser = optax.partition({False: optax.sgd(0.1), True: optax.set_to_zero()}, labels)
    usual, _ = stepped(batch, optimiser=optimiser, steps=2, accumulate=accumulate)
    state, metrics = stepped(
        batch, optimiser=optimiser, steps=2, accumulate=accumulate, freeze=frozen
    )
    chex.assert_trees_all_close(state.params, usual.params, rtol=1e-6, atol=1e-7)
    chex.assert_trees_all_equal(state.params["embed"], PARAMS["embed"])
    gradient = jax.jit(jax.grad(plain_loss))(PARAMS, batch)
    learning = {name: leaf for name, leaf in named(gradient).items() if not matches(name, frozen)}
    _, first = stepped(batch, optimiser=optimiser, accumulate=accumulate, freeze=frozen)
    np.testing.assert_allclose(first["grad_norm"], optax.tree.norm(learning), rtol=1e-4)
    assert metrics["loss"] < first["loss"]


def test_pmap_equals_jit_on_uneven_shards():
    """SGD, not Adam, which hides a wrong scale; 8 devices, some without a single target."""
    assert jax.local_device_count() == 8
    batch = tiny.batch(rows=16)
    per_device = np.asarray(batch.target_mask).reshape(8, -1).sum(1)
    assert len(set(per_device)) > 2
    one, told_one = stepped(batch)
    many, told_many = stepped(batch, parallel.pmapped)
    chex.assert_trees_all_close(many.params, one.params, rtol=1e-6, atol=1e-6)
    for name, value in told_one.items():
        np.testing.assert_allclose(told_many[name], value, rtol=1e-6)


def test_pmap_with_layer_drop_drops_the_same_blocks_on_every_device():
    batch = tiny.batch(rows=16)
    one, _ = stepped(batch, steps=3, layer_drop=0.5)
    many, _ = stepped(batch, parallel.pmapped, steps=3, layer_drop=0.5)
    chex.assert_trees_all_close(many.params, one.params, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulation_equals_the_full_batch_on_ragged_rows(parts):
    """Trap 6: the mean of micro-batches' means is not the mean."""
    batch = tiny.batch(rows=8)
    whole, output = stepped(batch)
    split, told_split = stepped(batch, accumulate=parts)
    chex.assert_trees_all_close(split.params, whole.params, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(told_split["loss"], output["loss"], rtol=1e-6)


def test_accumulation_on_several_devices_equals_the_full_batch():
    batch = tiny.batch(rows=16)
    whole, _ = stepped(batch)
    split, _ = stepped(batch, parallel.pmapped, accumulate=2)
    chex.assert_trees_all_close(split.params, whole.params, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wrap", [parallel.jitted, parallel.pmapped])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_losses_fused_with_the_head_give_the_same_step(wrap, accumulate):
    batch = tiny.batch(rows=16)
    dense, output = stepped(batch)
    fused, told_fused = stepped(batch, wrap, accumulate=accumulate, chunk=5)
    chex.assert_trees_all_close(fused.params, dense.params, rtol=1e-6, atol=1e-6)
    for name, value in output.items():
        np.testing.assert_allclose(told_fused[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("chunk", [pytest.param(0, marks=pytest.mark.slow), 5])
def test_a_ramp_follows_the_optimisers_step_and_can_start_at_zero(chunk):
    """Trap 16. What a resumed run would do: the state alone says where the ramp is."""
    batch, optimiser = tiny.batch(), optax.sgd(0.1)
    state = initial_state(PARAMS, optimiser)

    def step_with(state, **soft_targets):
        terms = {"soft_targets": SoftTargets(**soft_targets), "mlm": HardLabels(weight=1.0)}
        step = make_step(MODEL, terms, optimiser, seed=0, teacher=TEACHER, chunk=chunk)
        return jax.jit(lambda state: step(state, TEACHER_PARAMS, batch))(state)

    ramps = {"weight": Ramp((0, 4), (0.0, 2.0)), "temperature": Ramp((1, 3), (1.0, 4.0))}
    for w, t in [(0.0, 1.0), (0.5, 1.0), (1.0, 2.5)]:
        ramped, output = step_with(state, ramps=ramps)
        fixed, told_fixed = step_with(state, weight=w, temperature=t)
        chex.assert_trees_all_close(ramped.params, fixed.params, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(
            output["loss"].compute(), told_fixed["loss"].compute(), rtol=1e-6
        )
        state = ramped


def test_rows_of_padding_change_nothing():
    batch = tiny.batch(rows=8)
    padded = jax.tree.map(lambda x: jnp.pad(x, ((0, 4), (0, 0))), batch)
    one, _ = stepped(batch)
    two, _ = stepped(padded)
    chex.assert_trees_all_close(one.params, two.params, rtol=1e-6, atol=1e-6)


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it():
    optimiser = optax.sgd(0.1)
    terms = {"soft_targets": SoftTargets(temperature=3.0), "cosine": CosineHidden()}
    step = parallel.jitted(make_step(MODEL, terms, optimiser, seed=0, teacher=MODEL))
    _, metrics = step(initial_state(PARAMS, optimiser), PARAMS, tiny.batch())
    for name in ("soft_targets", "cosine", "grad_norm"):
        np.testing.assert_allclose(float(metrics[name].compute()), 0, atol=1e-5)


def test_the_teacher_gets_no_gradient_no_dropout_and_no_layer_drop():
    """Trap 12. The teacher's terms are those of a plain forward pass, at every step."""
    noisy = families.build(tiny.config(layers=2, dropout=0.5, attention_dropout=0.5))
    optimiser = optax.sgd(0.0)
    terms = {"soft_targets": SoftTargets()}
    batch = tiny.batch()

    def output(teacher, **options):
        step = parallel.jitted(
            make_step(MODEL, terms, optimiser, seed=0, teacher=teacher, **options)
        )
        state = initial_state(PARAMS, optimiser)
        losses = []
        for _ in range(3):
            state, metrics = step(state, TEACHER_PARAMS, batch)
            losses.append(float(metrics["soft_targets"].compute()))
        return losses

    quiet = output(TEACHER)
    assert quiet == output(noisy, dropout=True)  # the student has rate 0, the teacher 0.5

    def through_the_step(teacher_params):
        step = make_step(MODEL, terms, optimiser, seed=0, teacher=TEACHER)
        _, metrics = step(initial_state(PARAMS, optimiser), teacher_params, batch, None)
        return metrics["soft_targets"].compute()

    gradient = jax.grad(through_the_step)(TEACHER_PARAMS)
    assert all((g == 0).all() for g in jax.tree.leaves(gradient))


def test_a_step_is_traced_once_and_donates_its_state():
    traced = chex.assert_max_traces(
        make_step(MODEL, TERMS, optax.sgd(0.1), seed=0, teacher=TEACHER), n=1
    )
    step = parallel.jitted(traced)
    state = initial_state(PARAMS, optax.sgd(0.1))
    first = state.params["embed"]["token"]
    for seed in range(3):
        state, _ = step(state, TEACHER_PARAMS, tiny.batch(seed=seed))
    assert first.is_deleted()
    assert int(state.step) == 3


def test_a_batch_that_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match="12 rows does not divide into 8"):
        stepped(tiny.batch(rows=12), parallel.pmapped)
    with pytest.raises(ValueError, match="batch_size 12 does not divide over 8 device"):
        parallel.check_batch(12, 1)


def test_bfloat16_steps_stay_near_float32():
    half = families.build(tiny.config(layers=1, compute="bfloat16"))
    optimiser = optax.sgd(0.0)
    output = []
    for model in (MODEL, half):
        step = parallel.jitted(make_step(model, {"mlm": HardLabels()}, optimiser, seed=0))
        state, metrics = step(initial_state(PARAMS, optimiser), None, tiny.batch())
        output.append(float(metrics["mlm"].compute()))
        assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(state.params))
    np.testing.assert_allclose(output[1], output[0], rtol=2e-2)


def test_objectives_that_cannot_be_minimised_are_refused():
    with pytest.raises(ValueError, match="weight 0"):
        objective.check({"mlm": HardLabels(weight=0.0)})
    with pytest.raises(ValueError, match="terms.kd.temperature is 0"):
        objective.check({"kd": SoftTargets(temperature=0.0)})
    with pytest.raises(ValueError, match="terms.mlm.weight is -1"):
        objective.check({"mlm": HardLabels(weight=-1.0), "kd": SoftTargets()})


def test_counts_do_not_depend_on_the_model():
    batch = tiny.batch()
    actual = objective.counts(TERMS, batch)
    assert float(actual["mlm"]) == float(actual["soft_targets"]) == int(batch.target_mask.sum())
    assert float(actual["cosine"]) == int(batch.mask.sum())
    assert isinstance(batch, Batch)
