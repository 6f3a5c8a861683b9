"""State spread over devices: the same numbers, a share of the bytes."""

import chex
import jax
import numpy as np
import optax
import pytest

from jaxkd.distil.step import initial_state, make_step
from jaxkd.distil.terms import CosineHidden, HardLabels, SoftTargets
from jaxkd.models import families
from jaxkd.train import parallel
from tests.models import tiny

MODEL = families.build(tiny.config(layers=1))
TEACHER = families.build(tiny.config(layers=2))
TERMS = {"kd": SoftTargets(temperature=2.0), "ce": HardLabels(), "cosine": CosineHidden()}


def step(optimiser, **options):
    return make_step(MODEL, TERMS, optimiser, seed=0, teacher=TEACHER, **options)


COUNTS = [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 4)), 8]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("chunk", [0, 5])
@pytest.mark.slow
def test_sharded_equals_jitted_on_ragged_rows(count, chunk):
    batch, optimiser = tiny.batch(rows=16), optax.sgd(0.1)
    params, teacher_params = MODEL.init(0), TEACHER.init(1)
    expected, output = parallel.jitted(step(optimiser))(
        initial_state(params, optimiser), teacher_params, batch
    )
    devices = jax.local_devices()[:count]
    state = parallel.shard(initial_state(params, optimiser), devices)
    run = parallel.sharded(step(optimiser, chunk=chunk), devices)
    actual, metrics = run(state, parallel.shard(teacher_params, devices), batch)
    chex.assert_trees_all_close(actual.params, expected.params, rtol=1e-6, atol=1e-6)
    for name, mean in output.items():
        np.testing.assert_allclose(metrics[name].compute(), mean.compute(), rtol=1e-5)


def test_losses_fused_with_the_head_give_each_device_its_own_positions():
    seen = []

    class Seen(HardLabels):
        def values(self, student, teacher, labels):
            seen.append(student.shape)
            return super().values(student, teacher, labels)

    devices, batch = jax.local_devices()[:4], tiny.batch(rows=16)
    optimiser = optax.sgd(0.1)
    made = make_step(MODEL, {"ce": Seen()}, optimiser, seed=0, chunk=10**6)
    state = parallel.shard(initial_state(MODEL.init(0), optimiser), devices)
    parallel.sharded(made, devices)(state, None, batch)
    assert {shape[0] for shape in seen} == {batch.targets.size // 4}


@pytest.mark.parametrize("count", COUNTS[1:])
def test_each_device_keeps_a_share_of_the_optimisers_state(count):
    devices, optimiser = jax.local_devices()[:count], optax.adam(1e-3)
    # Widths that divide, as those of real models do.
    model = families.build(tiny.config(layers=1, vocabulary=64))
    params = model.init(0)

    def bytes_held(state):
        large = [x for x in jax.tree.leaves(state.optimiser) if x.size >= 32]
        return sum(x.addressable_shards[0].data.nbytes for x in large)

    whole = bytes_held(initial_state(params, optimiser))
    run = parallel.sharded(make_step(model, {"ce": HardLabels()}, optimiser, seed=0), devices)
    state = parallel.shard(initial_state(params, optimiser), devices)
    assert bytes_held(state) == whole / count
    # Also of parameters that lie there already: the whole is on no device, not even at first.
    assert bytes_held(initial_state(parallel.shard(params, devices), optimiser)) == whole / count
    for _ in range(2):
        state, _ = run(state, None, tiny.batch(rows=8))
        assert bytes_held(state) == whole / count


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="parallel='shared'. Did you mean 'sharded'"):
        parallel.strategy("shared")
    run = parallel.sharded(step(optax.sgd(0.1)), jax.local_devices()[:4])
    with pytest.raises(ValueError, match="batch_size 6 does not divide over 4 device"):
        run(None, None, tiny.batch(rows=6))
