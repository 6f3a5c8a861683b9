"""A teacher says the same from a store; and how much it forgets when held in fewer bits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import losses
from jaxkd.core.stored_targets import Scores, States
from jaxkd.distil.step import initial_state, make_step
from jaxkd.distil.teacher import teacher_outputs
from jaxkd.distil.terms import HardLabels, SoftTargets
from jaxkd.models import families
from jaxkd.models.model import forward
from jaxkd.models.quantised import Int8, dequantise, megabytes, quantise, round_kernels
from jaxkd.train import parallel
from tests.distil.test_families import MORE, SIZES
from tests.models import tiny

MODEL = families.build(tiny.config(layers=2))
PARAMS = MODEL.init(0)
TERMS = {"kd": SoftTargets(temperature=2.0), "ce": HardLabels()}


def with_states(batch):
    hidden = forward(MODEL, PARAMS, batch).hidden[-1]
    hidden = jnp.take_along_axis(hidden, batch.target_positions[..., None], axis=1)
    return dataclasses.replace(batch, stored_targets=States(hidden))


@pytest.mark.parametrize(
    "wrap, chunk",
    [
        (parallel.pmapped, 5),
        pytest.param(parallel.jitted, 0, marks=pytest.mark.slow),
        pytest.param(parallel.sharded, 0, marks=pytest.mark.slow),
    ],
)
def test_a_step_from_stored_states_is_the_step_with_the_teacher(wrap, chunk):
    student = families.build(tiny.config(layers=1))
    start, optimiser = student.init(1), optax.sgd(0.1)
    batch = tiny.batch(rows=16)
    head = {"embed": {"token": PARAMS["embed"]["token"]}, "head": PARAMS["head"], "blocks": []}

    def stepped(batch, params, wrap, **options):
        step = make_step(student, TERMS, optimiser, seed=0, teacher=MODEL, chunk=chunk, **options)
        state = initial_state(start, optimiser)
        if wrap is parallel.sharded:
            state, params = parallel.shard((state, params))
        return wrap(step)(state, params, batch)

    expected, output = stepped(batch, PARAMS, parallel.jitted)
    actual, told_found = stepped(with_states(batch), head, wrap, accumulate=2)
    for a, b in zip(jax.tree.leaves(actual.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert float(told_found["kd"].compute()) == pytest.approx(
        float(output["kd"].compute()), rel=1e-5
    )


def test_stored_scores_are_the_logits():
    batch = dataclasses.replace(tiny.batch(), stored_targets=Scores(jnp.ones((8, 3))))
    np.testing.assert_array_equal(teacher_outputs(None, None, batch).logits, np.ones((8, 3)))


def test_int8_is_within_half_a_step_of_its_channels_scale():
    stored = quantise(PARAMS, "int8")
    kernel = PARAMS["blocks"][0]["feed_forward"]["expand"]["kernel"]
    actual = dequantise(stored)["blocks"][0]["feed_forward"]["expand"]["kernel"]
    half = np.abs(np.asarray(kernel)).max(0) / 127 / 2
    assert (np.abs(np.asarray(actual - kernel)) <= half * 1.001).all()
    token = np.asarray(PARAMS["embed"]["token"])
    off = np.abs(np.asarray(dequantise(stored)["embed"]["token"]) - token)
    assert (off <= np.abs(token).max(1, keepdims=True) / 127 / 2 * 1.001).all()
    assert isinstance(stored["embed"]["token"], Int8)
    norm = stored["blocks"][0]["norm"]["scale"]
    np.testing.assert_array_equal(norm, PARAMS["blocks"][0]["norm"]["scale"])


def test_a_channel_of_zeros_stays_zero():
    stored = quantise({"embed": {"widen": {"kernel": jnp.zeros((3, 2))}}}, "int8")
    np.testing.assert_array_equal(dequantise(stored)["embed"]["widen"]["kernel"], np.zeros((3, 2)))


@pytest.mark.parametrize("how, share", [("bfloat16", 0.5), ("int8", 0.32)])
def test_fewer_bits_take_less_memory_and_cost_little(how, share):
    stored = quantise(PARAMS, how)
    assert megabytes(stored) <= share * megabytes(PARAMS)
    batch = tiny.batch()
    exact, rough = (teacher_outputs(MODEL, params, batch).logits for params in (PARAMS, stored))
    kl = np.asarray(losses.soft_targets(rough, exact))[np.asarray(batch.target_mask)]
    deviation = np.asarray(losses.soft_targets(jnp.zeros_like(exact), exact))
    assert 0 < kl.mean() < 0.01 * deviation.mean()


def test_a_scan_takes_a_held_teacher_as_it_is():
    model = families.build(tiny.config(layers=2, scan_layers=True))
    batch, stored = tiny.batch(), quantise(PARAMS, "int8")
    actual = teacher_outputs(model, model.arrange(stored), batch).logits
    np.testing.assert_allclose(actual, teacher_outputs(MODEL, stored, batch).logits, atol=1e-4)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_teacher_with_rounded_kernels_computes_the_same_bits(family):
    config = families.FAMILIES[family][0](
        **(SIZES | dict(layers=2, compute="bfloat16") | MORE.get(family, {}))
    )
    model, batch = families.build(config), tiny.batch(rows=4)
    if model.encoder is not None:
        batch = dataclasses.replace(
            batch, decoder_tokens=batch.tokens, decoder_mask=batch.mask
        )  # fmt: skip
    params = model.arrange(tiny.random_params(config))
    rounded = round_kernels(params, config.dtype)
    assert megabytes(rounded) < 0.9 * megabytes(params)
    run = jax.jit(lambda params: teacher_outputs(model, params, batch))
    jax.tree.map(np.testing.assert_array_equal, run(rounded), run(params))


def test_kernels_that_are_no_float32_stay():
    for how in ("bfloat16", "int8"):
        stored = quantise(PARAMS, how)
        for a, b in zip(
            jax.tree.leaves(round_kernels(stored, jnp.dtype("bfloat16"))),
            jax.tree.leaves(stored),
            strict=True,
        ):
            assert a.dtype == b.dtype
