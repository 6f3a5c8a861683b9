"""Batches that get smaller: each row stops where it stops alone, with the answer it gives alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.exits import rules
from jaxkd.exits.run import EarlyExit
from jaxkd.exits.timing import exit_milliseconds, interleaved, whole
from jaxkd.models import families
from jaxkd.models.model import forward
from tests.models.test_exits import config

ROWS, LENGTH, LAYERS = 13, 10, 5
TABLE = np.random.default_rng(3).random((5, 6)) < 0.4
RULES = {
    "patience": rules.Patience(patience=2),
    "entropy": rules.Entropy(threshold=0.85),
    "confidence": rules.Confidence(threshold=0.6),
    "confident patience": rules.ConfidentPatience(patience=2, threshold=0.5),
    "distance": rules.Distance(patience=1, threshold=0.1),
    "optimal stopping": rules.OptimalStopping(
        table=TABLE, edges=np.tile(np.array([0.45, 0.6]), (5, 1))
    ),
}


def ragged():
    draw = np.random.default_rng(0)
    lengths = draw.integers(2, LENGTH + 1, ROWS)
    mask = np.arange(LENGTH) < lengths[:, None]
    tokens = np.where(mask, draw.integers(3, 61, (ROWS, LENGTH)), 1).astype(np.int32)
    return Batch(tokens=jnp.array(tokens), mask=jnp.array(mask))


def made(family="bert", **more):
    settings = config(family, layers=LAYERS, exits=(0, 1, 2, 3), init_std=0.3, **more)
    model = families.build(settings)
    return model, model.init(0)


@pytest.mark.parametrize("name", RULES)
def test_each_row_stops_where_it_stops_alone(name):
    model, params = made()
    batch, run = ragged(), EarlyExit(model, RULES[name], 3)
    together = run(params, batch)
    outputs = forward(model, params, batch)
    every = np.stack([*(np.array(x) for x in outputs.exits.values()), np.array(outputs.logits)])
    for row in range(ROWS):
        one = jax.tree.map(lambda x, row=row: x[row : row + 1], batch)
        alone = run(params, one)
        assert alone.exits[0] == together.exits[row]
        np.testing.assert_allclose(alone.logits[0], together.logits[row], atol=1e-5)
        np.testing.assert_allclose(together.logits[row], every[together.exits[row], row], atol=1e-5)
    assert len(set(together.exits.tolist())) > 1  # rows do leave at several exits


@pytest.mark.parametrize(
    "family, pooler",
    [("distilbert", "own"), ("albert", "shared"), ("modernbert", "own"), ("llama", "shared")],
)
def test_all_families_answer_as_their_exits_do(family, pooler):
    model, params = made(family, exit_pooler=pooler, exit_reads="mean")
    batch, rule = ragged(), rules.Patience(patience=1)
    together = EarlyExit(model, rule, 3)(params, batch)
    outputs = forward(model, params, batch)
    every = np.stack([*(np.array(x) for x in outputs.exits.values()), np.array(outputs.logits)])
    history = rules.History.start(ROWS, 3)
    expected = np.full(ROWS, 4)
    for i in range(5):
        history, stop = rule.decide(history, jnp.array(every[i]), i)
        expected = np.minimum(expected, np.where(np.array(stop), i, 4))
    assert together.exits.tolist() == expected.tolist()
    np.testing.assert_allclose(together.logits, every[expected, np.arange(ROWS)], atol=1e-5)


def test_a_batch_of_one_size_is_compiled_once():
    model, params = made()
    run = EarlyExit(model, RULES["patience"], 3)
    run(params, ragged())
    sizes = run._blocks._cache_size()
    assert 1 <= sizes <= 7  # of 12, 8, 6, 4, 3, 2, 1
    run(params, ragged())
    assert run._blocks._cache_size() == sizes and run._first._cache_size() == 1


@pytest.mark.parametrize(
    "family, settings, tolerance",
    [
        ("bert", {"labels": ("score",)}, 1e-5),
        ("bert", {"scan_layers": True}, 1e-5),
        ("bert", {"compute": "bfloat16"}, 5e-2),
    ],
)
def test_pairs_regressions_and_other_ways_to_compute(family, settings, tolerance):
    model, params = made(family, **settings)
    batch = ragged()
    segments = jnp.asarray(np.arange(LENGTH) >= 4, jnp.int32)[None] * batch.mask
    batch = dataclasses.replace(batch, segments=segments)
    labels = len(settings.get("labels", "abc"))
    outputs = forward(model, model.arrange(params), batch)
    every = np.stack([*(np.array(x) for x in outputs.exits.values()), np.array(outputs.logits)])
    for exit in (1, 4):
        answers = EarlyExit(model, rules.AtExit(exit), labels)(params, batch)
        np.testing.assert_allclose(answers.logits, every[exit], atol=tolerance)
    without = EarlyExit(model, rules.AtExit(4), labels)(params, ragged())
    assert np.abs(without.logits - every[4]).max() > 10 * tolerance  # segments matter


def test_rows_that_fill_a_batch_up_are_not_run():
    model, params = made()
    run, batch = EarlyExit(model, rules.AtExit(2), 3), ragged()
    expected = run(params, batch)
    mask = batch.mask.at[4:].set(False)
    filled = run(params, dataclasses.replace(batch, mask=mask))
    np.testing.assert_allclose(filled.logits[:4], expected.logits[:4], atol=1e-5)
    assert filled.exits.tolist() == [2] * 4 + [0] * 9 and not filled.logits[4:].any()


def test_rules_of_one_kind_are_compiled_once():
    model, params = made()
    run = EarlyExit(model, rules.AtExit(2), 3)
    assert set(run(params, ragged()).exits.tolist()) == {2}
    other = run.with_rule(rules.AtExit(4))
    assert set(other(params, ragged()).exits.tolist()) == {4}
    assert run._first._cache_size() == 1 and run._blocks._cache_size() == 0
    with pytest.raises(ValueError, match="exit is 5, and the model has 5"):
        run.with_rule(rules.AtExit(5))
    with pytest.raises(ValueError, match="the table is of 4 exits"):
        table, edges = TABLE[:4], RULES["optimal stopping"].edges[:4]
        run.with_rule(rules.OptimalStopping(table=table, edges=edges))


def test_a_model_without_exits_and_a_rule_that_cannot_stop_are_refused():
    model, _ = made()
    with pytest.raises(ValueError, match="patience is 5.*Allowed: 1 to 4"):
        EarlyExit(model, rules.Patience(patience=5), 3)
    plain = families.build(config(exits=()))
    with pytest.raises(ValueError, match="no early exits"):
        EarlyExit(plain, rules.Patience(), 3)


def test_the_time_until_an_exit_never_falls_and_the_first_round_is_not_counted():
    model, params = made()
    calls = []
    functions = {name: lambda batch, name=name: calls.append(name) for name in "abc"}
    measured = interleaved(functions, [ragged(), ragged()], rounds=2)
    assert {name: m.seconds.shape for name, m in measured.items()} == dict.fromkeys("abc", (2, 2))
    assert all(each.joules is None for each in measured.values())  # no counters were given
    # Functions take turns, each with all batches, and another one begins each round.
    assert "".join(calls) == "ccaabb" + "aabbcc" + "bbccaa"
    run = EarlyExit(model, rules.AtExit(), 3)
    milliseconds = exit_milliseconds(run, params, [ragged()], rounds=1)
    assert milliseconds.shape == (5,) and (np.diff(milliseconds) >= 0).all()
    np.testing.assert_allclose(
        whole(model, params)(ragged()), forward(model, params, ragged()).logits, atol=1e-5
    )
