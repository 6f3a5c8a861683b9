"""Evaluation: exact over ragged batches, and what it says of a student and its teacher."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from jaxkd.evaluate.predictions import make_evaluate
from jaxkd.models import families
from jaxkd.models.model import forward
from tests.models import tiny

MODEL = families.build(tiny.config())
PARAMS, OTHER = MODEL.init(0), MODEL.init(1)
BATCHES = [tiny.batch(seed=seed) for seed in range(3)]


def test_loss_and_accuracy_are_those_of_sklearn_over_all_counted_targets():
    found = make_evaluate(MODEL)(PARAMS, None, BATCHES)
    logits = [
        np.asarray(forward(MODEL, PARAMS, b).logits)[np.asarray(b.target_mask)] for b in BATCHES
    ]
    labels = [np.asarray(b.targets)[np.asarray(b.target_mask)] for b in BATCHES]
    z, y = np.concatenate(logits).astype(float), np.concatenate(labels)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(found["loss"], log_loss(y, p, labels=range(61)), rtol=1e-5)
    np.testing.assert_allclose(found["accuracy"], accuracy_score(y, p.argmax(1)), rtol=1e-6)
    np.testing.assert_allclose(found["perplexity"], np.exp(found["loss"]), rtol=1e-6)


def test_a_model_agrees_with_itself_and_not_with_another():
    evaluate = make_evaluate(MODEL, MODEL)
    same, different = evaluate(PARAMS, PARAMS, BATCHES), evaluate(PARAMS, OTHER, BATCHES)
    np.testing.assert_allclose(same["kl"], 0, atol=1e-6)
    assert same["agreement"] == 1
    assert different["kl"] > 0.1 and different["agreement"] < 0.9


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_few_positions_at_a_time_give_the_same(chunk):
    whole = make_evaluate(MODEL, MODEL, top=(5,))(PARAMS, OTHER, BATCHES)
    found = make_evaluate(MODEL, MODEL, top=(5,), chunk=chunk)(PARAMS, OTHER, BATCHES)
    assert found.keys() == whole.keys() and "accuracy_5" in found
    for name, value in whole.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_evaluation_does_not_drop_anything():
    noisy = families.build(tiny.config(dropout=0.5, attention_dropout=0.5))
    assert make_evaluate(noisy)(PARAMS, None, BATCHES) == make_evaluate(MODEL)(
        PARAMS, None, BATCHES
    )
    assert jnp.isfinite(make_evaluate(MODEL)(PARAMS, None, BATCHES)["loss"])
