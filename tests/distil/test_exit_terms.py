"""Terms at exits: the weighted mean of the losses of each, and gradients where they belong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.mean import Mean
from jaxkd.distil import objective
from jaxkd.distil.exit_terms import AtExits
from jaxkd.distil.terms import CosineHidden, HardLabels, SoftTargets
from jaxkd.models import families
from jaxkd.models.model import forward
from tests.models.test_exits import batch_of_rows, config


@pytest.fixture(scope="module")
def made():
    model = families.build(config())
    rows = len(batch_of_rows().tokens)
    batch = dataclasses.replace(
        batch_of_rows(),
        targets=jnp.arange(rows) % 3,
        target_mask=jnp.arange(rows) < rows - 2,
    )
    return model, model.init(0), batch


def mean_loss(logits, batch):
    log_probs = jax.nn.log_softmax(logits)
    values = -np.take_along_axis(np.array(log_probs), np.array(batch.targets)[:, None], 1)[:, 0]
    return values[np.array(batch.target_mask)].mean()


@pytest.mark.parametrize("weighting, weights", [("depth", (1, 3, 4)), ("equal", (1, 1, 1))])
def test_the_loss_is_the_weighted_mean_over_exits_and_head(made, weighting, weights):
    model, params, batch = made
    outputs = forward(model, params, batch)
    logits = (outputs.exits["exit_00"], outputs.exits["exit_02"], outputs.logits)
    losses = [mean_loss(each, batch) for each in logits]
    term = AtExits(weighting=weighting)
    objective.check({"exits": term})
    actual = Mean(term.total(outputs, None, batch), term.count(batch)).compute()
    np.testing.assert_allclose(actual, np.average(losses, weights=weights), rtol=1e-5)
    inner = AtExits(weighting=weighting, head=False)
    actual = Mean(inner.total(outputs, None, batch), term.count(batch)).compute()
    np.testing.assert_allclose(actual, np.average(losses[:2], weights=weights[:2]), rtol=1e-5)


def test_a_head_that_is_the_target_learns_nothing_from_it(made):
    model, params, batch = made
    term = AtExits(SoftTargets(temperature=2.0), target="head")
    objective.check({"exits": term})
    assert not term.needs_teacher and AtExits(SoftTargets()).needs_teacher

    def loss(params):
        return term.total(forward(model, params, batch), None, batch)

    gradient = jax.grad(loss)(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["head"]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["blocks"][3]))
    for part in ("exit_00", "exit_02"):
        assert np.any(gradient[part]["classify"]["kernel"])


@pytest.mark.parametrize(
    "term, message",
    [
        (AtExits(CosineHidden()), "exits learn terms over predictions"),
        (AtExits(HardLabels(), target="head"), "learns labels alone"),
        (AtExits(weighting="deep"), "weighting"),
        (AtExits(SoftTargets(temperature=0.0)), "exits.term.temperature"),
    ],
)
def test_terms_that_exits_cannot_learn_are_refused(term, message):
    with pytest.raises(ValueError, match=message):
        objective.check({"exits": term})


def test_a_model_without_exits_says_so(made):
    model = families.build(config(exits=()))
    _, _, batch = made
    with pytest.raises(ValueError, match="no early exits"):
        AtExits().total(forward(model, model.init(0), batch), None, batch)
