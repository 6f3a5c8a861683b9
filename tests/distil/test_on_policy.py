"""A student's own words as targets: what it would write, alike on all devices."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd.core.batch import Batch
from jaxkd.distil.on_policy import OnPolicy, mixer, sources, with_targets
from jaxkd.distil.step import initial_state, make_step
from jaxkd.distil.terms import Divergence
from jaxkd.models.model import forward
from jaxkd.train import parallel
from tests.decode.test_beam import END, small

READ, WRITE = 6, 5


def pairs(family, rows=16):
    """Sources of 1 to 6 tokens, targets of 1 to 5."""
    rng = np.random.default_rng(0)
    read, written = rng.integers(1, READ + 1, (rows, 1)), rng.integers(1, WRITE + 1, (rows, 1))
    source, target = rng.integers(3, 5, (rows, READ)), rng.integers(3, 5, (rows, WRITE))
    token_mask, requested = np.arange(READ) < read, np.arange(WRITE) < written
    source, target = np.where(token_mask, source, 0), np.where(requested, target, 0)
    if family == "gpt2":
        tokens = np.concatenate([source, np.zeros_like(target)], axis=1)
        places = read + np.arange(WRITE)
        np.put_along_axis(tokens, places, target, axis=1)
        mask = np.arange(READ + WRITE) < read + written
        batch = Batch(tokens, mask, target, places - 1, requested)
    else:
        message = np.concatenate([np.full((rows, 1), 1), target[:, :-1]], axis=1)
        batch = Batch(
            source,
            token_mask,
            target,
            target_mask=requested,
            decoder_tokens=message,
            decoder_mask=requested,
        )
    return jax.tree.map(lambda x: jnp.array(x, bool if x.dtype == bool else jnp.int32), batch)


def mixing(family, share=1.0, **how):
    model, config, params = small(family)
    mix = mixer(
        model, config, OnPolicy(share=share, **how), seed=0, end=END, pad=0, suppress_tokens=(0, 1)
    )
    return model, params, mix


@pytest.mark.parametrize("family", ["gpt2", "marian", "lstm"])
def test_what_it_writes_greedily_is_what_it_finds_likeliest(family):
    model, params, mix = mixing(family, temperature=0.0)
    arguments = pairs(family)
    batch, share = jax.jit(mix)(params, arguments, 0)
    assert share == 1 and bool(batch.target_mask[:, 0].all())
    chex.assert_trees_all_equal(sources(batch), sources(arguments))
    logits = forward(model, params, batch).logits.at[..., jnp.array([0, 1])].set(-jnp.inf)
    likeliest = jnp.argmax(logits, axis=-1)
    assert bool(jnp.where(batch.target_mask, likeliest == batch.targets, True).all())
    # Nothing after its end counts.
    ended = np.cumsum(np.array(batch.targets) == END, axis=1)
    before = ended - (np.array(batch.targets) == END)
    np.testing.assert_array_equal(batch.target_mask, before == 0)


@pytest.mark.parametrize("family", ["gpt2", "marian"])
def test_the_same_targets_give_the_same_batch(family):
    arguments = pairs(family)
    again = with_targets(arguments, arguments.targets, arguments.target_mask, 0)
    chex.assert_trees_all_equal(again, arguments)


def test_the_coin_falls_as_often_as_it_should_and_changes_nothing_else():
    _, params, mix = mixing("marian", share=0.3)
    arguments = pairs("marian")
    drawn = jax.jit(mix)
    shares = []
    for step in range(300):
        batch, share = drawn(params, arguments, step)
        shares.append(float(share))
        if not share:
            chex.assert_trees_all_equal(batch, arguments)
    deviation = np.sqrt(0.3 * 0.7 / 300)
    assert abs(np.mean(shares) - 0.3) < 4 * deviation
    assert set(shares) == {0.0, 1.0}


@pytest.mark.parametrize("family", ["gpt2", "marian"])
def test_a_step_on_many_devices_is_that_of_one(family):
    """SGD; what is drawn depends on a row's number, not on its device."""
    assert jax.local_device_count() == 8
    model, params, mix = mixing(family)
    batch, optimiser = pairs(family), optax.sgd(0.1)
    teacher = small(family, init_std=0.7)[2]
    terms = {"reverse": Divergence(kind="reverse_kl")}
    step = make_step(model, terms, optimiser, seed=0, teacher=model, mix=mix)
    one, output = parallel.jitted(step)(initial_state(params, optimiser), teacher, batch)
    many, also = parallel.pmapped(step)(initial_state(params, optimiser), teacher, batch)
    chex.assert_trees_all_close(many.params, one.params, rtol=1e-6, atol=1e-6)
    for name, mean in output.items():
        np.testing.assert_allclose(also[name].compute(), mean.compute(), rtol=1e-6)

    def written_out(params, drawn):
        """Reverse KL at the counted positions of a batch that was drawn before."""
        student_outputs, teacher_outputs = (
            forward(model, p, drawn).logits for p in (params, teacher)
        )
        q, p = jax.nn.log_softmax(student_outputs), jax.nn.log_softmax(teacher_outputs)
        kl = (jnp.exp(q) * (q - p)).sum(-1)
        return (kl * drawn.target_mask).sum() / drawn.target_mask.sum()

    drawn, _ = mix(params, batch, 0)
    loss, gradient = jax.value_and_grad(written_out)(params, drawn)
    np.testing.assert_allclose(output["loss"].compute(), loss, rtol=1e-5)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    chex.assert_trees_all_close(one.params, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["accumulated", "sharded"])
def test_however_the_batch_is_split_the_words_are_the_same(mode):
    model, params, mix = mixing("gpt2")
    batch, optimiser = pairs("gpt2"), optax.sgd(0.1)
    teacher = small("gpt2", init_std=0.7)[2]
    terms = {"reverse": Divergence(kind="reverse_kl")}
    arguments = dict(seed=0, teacher=model, mix=mix)

    def stepped(name, **more):
        run, place = parallel.strategy(name)
        step = run(make_step(model, terms, optimiser, **arguments, **more))
        return step(place(initial_state(params, optimiser)), place(teacher), batch)[0]

    one = stepped("jitted")
    other = stepped("jitted", accumulate=4) if mode == "accumulated" else stepped("sharded")
    for a, b in zip(jax.tree.leaves(other.params), jax.tree.leaves(one.params), strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-6, atol=1e-6)


def test_a_share_is_a_share():
    with pytest.raises(
        ValueError, match="on_policy.share is 1.5; it must be at least 0 and at most 1"
    ):
        OnPolicy(share=1.5).check()
    with pytest.raises(ValueError, match="top_p"):
        dataclasses.replace(OnPolicy(), top_p=0.0).check()
