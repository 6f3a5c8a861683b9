"""The controller: its probabilities add up to one, its exploration falls, it finds the best."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.models.bert import Config
from jaxkd.search.controller import Controller, Settings, log_chance
from jaxkd.search.optimisers import Outcome
from jaxkd.search.space import Space

SPACE = Space(Config(width=8, heads=4), {"width": (2, 4, 6, 8), "heads": (1, 2, 4)})


def chances(controller):
    encoded = [controller._encoded(candidate) for candidate in SPACE.all()]
    return np.array(
        [float(jnp.exp(log_chance(controller._params, controller._context, *e))) for e in encoded]
    )


def test_the_probabilities_of_all_candidates_add_up_to_one():
    assert chances(Controller(SPACE, 0)).sum() == pytest.approx(1.0, abs=1e-5)


def test_candidates_are_drawn_as_their_probabilities_say():
    controller = Controller(SPACE, 1)
    draw, keys = np.random.default_rng(0), [SPACE.key(c) for c in SPACE.all()]
    drawn = [SPACE.key(controller._draw(draw, 1.0)) for _ in range(4000)]
    shares = np.array([drawn.count(key) / len(drawn) for key in keys])
    expected = chances(controller)
    error = np.sqrt(expected * (1 - expected) / len(drawn))
    assert (np.abs(shares - expected) < 4 * error).all()


def test_the_gradient_raises_what_was_rewarded():
    controller = Controller(SPACE, 0, Settings(episode=2, updates=20))
    before = chances(controller)[0]
    for number, candidate in enumerate(SPACE.all()):
        controller.observe(candidate, Outcome(float(number == 0)))
    controller.suggest(len(SPACE.all()))
    assert chances(controller)[0] > 3 * before


def test_exploration_falls_from_episode_to_episode_to_its_least():
    controller = Controller(SPACE, 0, Settings(exploration=0.8, decay=0.5, least=0.1))
    assert [controller.exploration(i) for i in range(5)] == [0.8, 0.4, 0.2, 0.1, 0.1]


def test_it_reads_the_best_the_last_best_and_the_last_episode():
    controller = Controller(SPACE, 0, Settings(episode=2))
    rewards = [0.9, 0.1, 0.3, 0.2]
    for candidate, reward in zip(SPACE.all(), rewards, strict=False):
        controller.observe(candidate, Outcome(reward))
    controller.suggest(4)
    assert np.allclose(np.asarray(controller._context)[:, -1], [0.9, 0.3, 0.3, 0.2])


def test_rewards_that_are_no_numbers_are_not_learned_from():
    controller = Controller(SPACE, 0, Settings(episode=2))
    for candidate in SPACE.all()[:4]:
        controller.observe(candidate, Outcome(math.nan))
    assert controller.suggest(4) in SPACE.all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(controller._params))
