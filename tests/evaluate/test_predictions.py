"""Evaluation: exact over ragged batches, and what it says of a student and its teacher."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from jaxkd.core.batch import Batch
from jaxkd.evaluate import measures, predictions
from jaxkd.evaluate.predictions import make_evaluate
from jaxkd.metrics import classes
from jaxkd.models import families
from jaxkd.models.model import forward
from jaxkd.tasks import task as tasks
from tests.models import tiny

MODEL = families.build(tiny.config())
PARAMS, OTHER = MODEL.init(0), MODEL.init(1)
BATCHES = [tiny.batch(seed=seed) for seed in range(3)]
METRICS = tasks.causal_lm().metrics  # top 5 among them


def test_loss_and_accuracy_are_those_of_sklearn_over_all_counted_targets():
    numbers = make_evaluate(MODEL, None, METRICS)(PARAMS, None, BATCHES)
    assert set(numbers) == {"loss", "perplexity", "accuracy", "accuracy_5"}
    logits = [
        np.asarray(forward(MODEL, PARAMS, b).logits)[np.asarray(b.target_mask)] for b in BATCHES
    ]
    labels = [np.asarray(b.targets)[np.asarray(b.target_mask)] for b in BATCHES]
    z, y = np.concatenate(logits).astype(float), np.concatenate(labels)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(numbers["loss"], log_loss(y, p, labels=range(61)), rtol=1e-5)
    np.testing.assert_allclose(numbers["accuracy"], accuracy_score(y, p.argmax(1)), rtol=1e-6)
    np.testing.assert_allclose(numbers["perplexity"], np.exp(numbers["loss"]), rtol=1e-12)


def test_a_model_agrees_with_itself_and_not_with_another():
    evaluate = make_evaluate(MODEL, MODEL, METRICS)
    same, different = evaluate(PARAMS, PARAMS, BATCHES), evaluate(PARAMS, OTHER, BATCHES)
    np.testing.assert_allclose(same["kl"], 0, atol=1e-6)
    assert same["agreement"] == 1
    assert different["kl"] > 0.1 and different["agreement"] < 0.9


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_few_positions_at_a_time_give_the_same(chunk):
    whole = make_evaluate(MODEL, MODEL, METRICS)(PARAMS, OTHER, BATCHES)
    chunked = make_evaluate(MODEL, MODEL, METRICS, chunk=chunk)(PARAMS, OTHER, BATCHES)
    assert chunked.keys() == whole.keys() and "accuracy_5" in chunked
    for name, value in whole.items():
        np.testing.assert_allclose(chunked[name], value, rtol=1e-5, err_msg=name)


def test_metrics_over_targets_never_see_more_than_a_chunk_of_logits():
    shapes = []

    def values(student, teacher, labels):
        shapes.append(student.shape)
        return measures.LOSS.values(student, teacher, labels)

    watched = dataclasses.replace(measures.LOSS, values=values)
    make_evaluate(MODEL, None, (watched,), chunk=3)(PARAMS, None, BATCHES[:1])
    assert shapes and all(shape == (3, 61) for shape in shapes)


def test_evaluation_does_not_drop_anything():
    noisy = families.build(tiny.config(dropout=0.5, attention_dropout=0.5))
    numbers = make_evaluate(noisy, None, METRICS)(PARAMS, None, BATCHES)
    assert numbers == make_evaluate(MODEL, None, METRICS)(PARAMS, None, BATCHES)
    assert math.isfinite(numbers["loss"])


def test_the_first_batches_are_read_before_the_last_are_dispatched(monkeypatch):
    """Else all batches of a split would be on the device at once."""
    alive = []
    gather = predictions.hosts.gathered

    def counted(states):
        alive.append(-1)
        return gather(states)

    def batches():
        for _ in range(30):
            alive.append(1)
            yield BATCHES[0]

    monkeypatch.setattr(predictions.hosts, "gathered", counted)
    make_evaluate(MODEL, None, METRICS)(PARAMS, None, batches())
    assert sum(alive) == 0 and max(np.cumsum(alive)) <= 8


def test_perplexity_of_a_loss_that_diverged_is_infinite():
    """exp overflows above 709.78 nats, and a loss of 6,633 nats is finite."""
    config = tiny.config()
    params = jax.tree.map(jnp.copy, PARAMS)
    bias = jnp.zeros(config.vocabulary).at[0].set(5000.0)
    params["head"]["bias"] = bias
    batch = dataclasses.replace(BATCHES[0], targets=jnp.ones_like(BATCHES[0].targets))
    numbers = make_evaluate(MODEL, None, METRICS)(params, None, [batch])
    assert 709.78 < numbers["loss"] < math.inf and numbers["perplexity"] == math.inf


def test_totals_of_many_batches_are_added_in_float64(monkeypatch):
    """2^24 + 1 targets: in float32 the last one would be lost."""
    one = dataclasses.replace(measures.LOSS, values=lambda s, t, y: jnp.ones_like(y, jnp.float32))
    totals = []
    watched = dataclasses.replace(one, finish=lambda mean: totals.append(mean) or 0.0)
    big = lambda tree: jax.tree.map(lambda x: x * 0 + 2.0**24, tree)  # noqa: E731
    gather, calls = predictions.hosts.gathered, []

    def first_is_big(states):
        calls.append(1)
        return big(gather(states)) if len(calls) == 1 else gather(states)

    monkeypatch.setattr(predictions.hosts, "gathered", first_is_big)
    targets = int(np.asarray(BATCHES[1].target_mask).sum())
    make_evaluate(MODEL, None, (watched,))(PARAMS, None, BATCHES[:2])
    assert totals[0].count == 2**24 + targets and totals[0].count.dtype == np.float64


def test_no_batches_and_two_metrics_of_one_name_are_refused():
    with pytest.raises(ValueError, match="no batches"):
        make_evaluate(MODEL, None, METRICS)(PARAMS, None, [])
    with pytest.raises(ValueError, match="stands twice"):
        make_evaluate(MODEL, None, (measures.LOSS, classes.MSE))


def test_ctc_counts_labels_and_rows_as_its_loss_and_decoding_do():
    """A row of padding fills the batch up: it costs nothing and is not counted."""
    model = MODEL
    tokens = jnp.array([[5, 6, 7, 8], [9, 10, 0, 0], [0, 0, 0, 0]])
    mask = tokens > 0
    labels = jnp.array([[5, 7, 0, 0], [9, 0, 0, 0], [0, 0, 0, 0]])
    batch = Batch(tokens=tokens, mask=mask, targets=labels, target_mask=labels > 0)
    numbers = make_evaluate(model, model, tasks.ctc().metrics)(PARAMS, OTHER, [batch])
    import optax

    logits = forward(model, PARAMS, batch).logits.astype(jnp.float32)
    cost = optax.ctc_loss(logits, 1.0 - mask, labels, 1.0 * (labels == 0))
    np.testing.assert_allclose(numbers["loss"], float(cost[:2].sum()) / 3, rtol=1e-6)
    teacher = forward(model, OTHER, batch).logits
    p, q = (jax.nn.log_softmax(x.astype(jnp.float32)) for x in (teacher, logits))
    kl = jnp.sum(jnp.exp(p) * (p - q), -1)[mask].mean()
    np.testing.assert_allclose(numbers["kl"], float(kl), rtol=1e-4)
