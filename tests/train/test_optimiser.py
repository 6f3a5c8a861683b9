"""AdamW with warm-up, decay, clipping and frozen parts."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from jaxkd.models.stack import stack, unstack
from jaxkd.train.optimiser import AdamW

PARAMS = {
    "embed": {"position": jnp.ones((3, 2)), "token": jnp.ones((4, 2))},
    "head": {"bias": jnp.ones(2)},
}
GRADIENT = jax.tree.map(lambda x: jnp.arange(x.size, dtype=float).reshape(x.shape) - 1, PARAMS)


def updated(settings: AdamW, steps: int, **options):
    chain = settings.build(PARAMS, 10, **options)
    params, state = PARAMS, chain.init(PARAMS)
    for _ in range(steps):
        updates, state = chain.update(GRADIENT, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_adamw_matches_torch():
    settings = AdamW(learning_rate=0.1, warmup=0.0, decay="constant", weight_decay=0.3, clip=0.0)
    actual = updated(settings, 4)
    for name, decays in (("token", 0.3), ("bias", 0.0)):
        start = PARAMS["embed"]["token"] if name == "token" else PARAMS["head"]["bias"]
        gradient = GRADIENT["embed"]["token"] if name == "token" else GRADIENT["head"]["bias"]
        tensor = torch.nn.Parameter(torch.tensor(np.array(start)))
        reference = torch.optim.AdamW(
            [tensor], lr=0.1, betas=(0.9, 0.98), eps=1e-6, weight_decay=decays
        )
        for _ in range(4):
            tensor.grad = torch.tensor(np.array(gradient))
            reference.step()
        ours = actual["embed"]["token"] if name == "token" else actual["head"]["bias"]
        np.testing.assert_allclose(ours, tensor.detach().numpy(), rtol=1e-5)


def test_frozen_parameters_do_not_move_by_gradient_or_weight_decay():
    actual = updated(AdamW(weight_decay=0.5), 3, freeze=["embed/position"])
    np.testing.assert_array_equal(actual["embed"]["position"], PARAMS["embed"]["position"])
    assert not np.allclose(actual["embed"]["token"], PARAMS["embed"]["token"])


def test_a_frozen_pattern_that_fits_nothing_is_an_error():
    with pytest.raises(ValueError, match="Did you mean 'embed/position'"):
        AdamW().build(PARAMS, 10, ["embed/positions"])


def test_clipping_scales_the_whole_gradient_to_its_norm():
    chain = AdamW(clip=1e-3, epsilon=1e3, b1=0.0, weight_decay=0.0, warmup=0.0).build(PARAMS, 10)
    # With so large an epsilon Adam divides by it: updates are the clipped gradient x rate / 1e3.
    updates, _ = chain.update(GRADIENT, chain.init(PARAMS), PARAMS)
    np.testing.assert_allclose(optax.tree.norm(updates), 1e-3 * 1e-3 / 1e3, rtol=1e-3)


def test_frozen_parameters_have_no_part_in_the_norm_that_is_clipped():
    settings = AdamW(clip=1.0, epsilon=1e3, b1=0.0, weight_decay=0.0, warmup=0.0)
    chain = settings.build(PARAMS, 10, ["embed/position"])
    huge = GRADIENT | {"embed": GRADIENT["embed"] | {"position": jnp.full((3, 2), 1e6)}}
    (one, _), (two, _) = (chain.update(g, chain.init(PARAMS), PARAMS) for g in (GRADIENT, huge))
    np.testing.assert_array_equal(one["embed"]["token"], two["embed"]["token"])


@pytest.mark.parametrize("decay, last", [("linear", 0.0125), ("cosine", 0.0038), ("constant", 0.1)])
def test_the_rate_rises_to_its_peak_and_falls(decay, last):
    schedule = AdamW(learning_rate=0.1, warmup=0.2, decay=decay).schedule(10)
    rates = [float(schedule(i)) for i in range(10)]
    np.testing.assert_allclose(rates[:3], [0.05, 0.1, 0.1], rtol=1e-5)  # of 2 warm-up updates
    np.testing.assert_allclose(rates[9], last, rtol=2e-2)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_settings_that_cannot_work_are_named():
    with pytest.raises(ValueError, match="Did you mean 'linear'"):
        AdamW(decay="linea").check()
    with pytest.raises(ValueError, match="learning_rate is 0"):
        AdamW(learning_rate=0.0).check()


@pytest.mark.parametrize(
    "field, value",
    [("clip", -1.0), ("b1", 1.0), ("b2", -0.1), ("epsilon", 0.0), ("weight_decay", -0.01),
     ("warmup", 1.0), ("learning_rate", float("inf")), ("clip", float("nan"))],
)  # fmt: skip
def test_every_field_has_a_range(field, value):
    with pytest.raises(ValueError, match=f"optimiser.{field} is {value}; it must be "):
        AdamW(**{field: value}).check()


def test_stacked_blocks_decay_as_listed_ones_do():
    block = {
        "norm": {"scale": jnp.ones(5)},
        "feed_forward": {"expand": {"kernel": jnp.ones((5, 5))}},
    }
    listed = {"blocks": [block, block]}
    adamw = AdamW(learning_rate=0.1, weight_decay=0.5, warmup=0.0)
    actual = []
    for params in (listed, stack(listed)):
        optimiser = adamw.build(params, 3)
        zeros = jax.tree.map(jnp.zeros_like, params)
        actual.append(unstack(optimiser.update(zeros, optimiser.init(params), params)[0]))
    chex.assert_trees_all_equal(*actual)
    assert (actual[0]["blocks"][0]["feed_forward"]["expand"]["kernel"] < 0).all()
    with pytest.raises(ValueError, match="all blocks are one"):
        adamw.build(stack(listed), 3, ["blocks/0/*"])


def test_a_bias_of_any_shape_does_not_decay():
    params = {"head": {"bias": jnp.ones((1, 5)), "classify": {"kernel": jnp.ones((1, 5))}}}
    optimiser = AdamW(learning_rate=0.1, weight_decay=0.5, warmup=0.0).build(params, 3)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimiser.update(zeros, optimiser.init(params), params)
    np.testing.assert_array_equal(updates["head"]["bias"], 0)
    assert (updates["head"]["classify"]["kernel"] < 0).all()
