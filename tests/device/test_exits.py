"""Rules in numpy decide as jaxkd's do; a batch of a bundle answers as its rows alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.device import rules as ours
from jaxkd.device.bundle import Bundle
from jaxkd.device.errors import DamagedBundle, UsageError
from jaxkd.exits import rules, stopping
from jaxkd.exits.run import EarlyExit
from jaxkd.models import families
from tests.device import bundles

TABLE = np.random.default_rng(3).random((4, 6)) < 0.4
EDGES = np.tile(np.array([0.4, 0.5]), (4, 1))
PAIRS = {
    "patience": (rules.Patience(patience=2), ours.Patience(2)),
    "entropy": (rules.Entropy(threshold=0.9), ours.Entropy(0.9)),
    "confidence": (rules.Confidence(threshold=0.5), ours.Confidence(0.5)),
    "optimal": (
        rules.OptimalStopping(table=TABLE, edges=EDGES),
        ours.OptimalStopping(TABLE, EDGES, 0.1),
    ),
    "never": (rules.AtExit(3), ours.Never()),
}


def exits_of(rule, logits):
    """The exit of each row, of logits [rows, exits, classes]."""
    rows, count, _ = logits.shape
    exits, running, memory = np.full(rows, count - 1), np.arange(rows), rule.start(rows)
    for number in range(count - 1):
        stop = rule.decide(memory, logits[running, number], number)
        exits[running[stop]] = number
        memory, running = rule.keep(memory, ~stop), running[~stop]
    return exits


@pytest.mark.parametrize(
    "name, classes",
    [(name, n) for name in PAIRS for n in (1, 3)] + [("patience", 2), ("optimal", 2)],
)
def test_rules_stop_where_those_of_jaxkd_do(name, classes):
    known, rule = PAIRS[name]
    if classes == 1 and rule.classes_only:
        with pytest.raises(UsageError, match="patience, optimal"):
            rule.check(1, 4)
        return
    draw = np.random.default_rng(classes)
    scale = 0.1 if classes == 1 else 1.0
    logits = (scale * draw.normal(size=(500, 4, classes))).astype(np.float32)
    if classes == 1 and name == "optimal":
        edges = EDGES - 0.55
        known, rule = rules.OptimalStopping(TABLE, edges), ours.OptimalStopping(TABLE, edges, 0.1)
    expected = rules.exits_under(known, logits)
    np.testing.assert_array_equal(exits_of(rule, logits), expected)
    assert name == "never" or len(set(expected.tolist())) > 1


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """The policies of a bundle; a test that changes them copies them."""
    return bundles.classifier(tmp_path_factory.mktemp("calibrated") / "b")[2]


@pytest.mark.parametrize("price", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("deadline", [None, 6.0])
def test_a_price_gives_the_table_of_jaxkd(price, deadline, calibrated):
    policies = calibrated
    chain = stopping.Chain(
        np.array(policies["quality"]), np.array(policies["moves"]), np.full((4, 6), 1 / 6)
    )
    milliseconds = np.array(policies["milliseconds"])
    policy = stopping.solve(
        chain, milliseconds, price / milliseconds.sum(), deadline=deadline or float("inf"),
        slowest=np.array(policies["slowest"]),
    )  # fmt: skip
    rule = ours.optimal(policies, price, deadline=deadline)
    np.testing.assert_array_equal(rule.table, policy.stop)


@pytest.mark.parametrize("name", ["quality", "moves", "edges", "milliseconds", "slowest"])
@pytest.mark.parametrize("lie", ["absent", "text", "ragged", "shorter", "a number"])
def test_a_calibration_that_does_not_hold_together_is_refused(name, lie, calibrated):
    policies = dict(calibrated)
    ours.optimal(policies, 0.1)
    value = policies.pop(name)
    if lie != "absent":
        ragged_rows = [[1.0], [1.0, 2.0]]
        lies = {"text": ["x"] * 4, "ragged": ragged_rows, "shorter": value[:-1], "a number": 3.0}
        policies[name] = lies[lie]
    with pytest.raises(DamagedBundle, match="policies"):
        ours.optimal(policies, 0.1)


def ragged(rows=11, length=10):
    draw = np.random.default_rng(5)
    mask = np.arange(length) < draw.integers(2, length + 1, rows)[:, None]
    ids = draw.integers(1, 97, (rows, length)) * mask
    return ids.astype(np.int64), mask.astype(np.int64)


@pytest.mark.parametrize("weights", ["float32", "float16"])
@pytest.mark.parametrize("name", ["patience", "confidence", "optimal"])
def test_rows_of_a_batch_are_answered_as_alone_and_as_by_jaxkd(name, weights, tmp_path):
    config, params, _ = bundles.classifier(tmp_path / "b", weights=weights)
    model, (known, rule) = Bundle(tmp_path / "b").model, PAIRS[name]
    ids, mask = ragged()
    together = model(ids, mask, rule=rule)
    for row in range(len(ids)):
        length = mask[row].sum()
        alone = model(ids[row : row + 1, :length], mask[row : row + 1, :length], rule=rule)
        assert alone.exits[0] == together.exits[row]
        assert alone.blocks[0] == together.blocks[row]
        np.testing.assert_allclose(alone.logits[0], together.logits[row], atol=1e-5)
    assert len(set(together.exits)) > 1
    run = EarlyExit(families.build(config), known, 3)
    batch = Batch(tokens=jnp.array(ids, jnp.int32), mask=jnp.array(mask, bool))
    expected = run(params, batch)
    if weights == "float32":
        assert [run.names[i] for i in expected.exits] == together.exits
        np.testing.assert_allclose(together.logits, expected.logits, atol=1e-4)


def test_a_deadline_stops_at_the_exit_that_is_reached(tmp_path):
    bundles.classifier(tmp_path / "b")
    model = Bundle(tmp_path / "b").model
    ids, mask = ragged(3)
    times = [0.0, 1e6, 0.0, 0.0]  # the second block would take a thousand seconds
    assert model(ids, mask, deadline=1e3, times=times).exits == ["exit_00"] * 3
    assert model(ids, mask, deadline=1e7, times=times).exits == ["head"] * 3


def test_a_deadline_looks_at_the_time_to_the_next_exit(tmp_path):
    bundles.classifier(tmp_path / "b", exits=(0,))
    model = Bundle(tmp_path / "b").model
    ids, mask = ragged(2)
    times = [0.0, 0.0, 1e6, 0.0]  # the third block is slow, and no exit comes before the head
    assert model(ids, mask, deadline=1e3, times=times).exits == ["exit_00"] * 2


def test_impossible_rules_are_refused(tmp_path):
    _, _, policies = bundles.classifier(tmp_path / "b")
    model = Bundle(tmp_path / "b").model
    ids, mask = ragged(2)
    for rule, message in (
        (ours.Patience(4), "1 to 3"),
        (ours.Confidence(1.5), "0 to 1"),
        (ours.Entropy(-1.0), "0 or more"),
        (ours.OptimalStopping(TABLE[:3], EDGES[:3], 0.1), "3 exits, and the model has 4"),
    ):
        with pytest.raises(UsageError, match=message):
            model(ids, mask, rule=rule)
    with pytest.raises(UsageError, match="0 or more"):
        ours.optimal(policies, -0.1)
    with pytest.raises(UsageError, match="deadline"):
        ours.optimal(policies, 0.1, deadline=1.0)
    with pytest.raises(UsageError, match="token ids are from 5 to 97"):
        model(np.array([[5, 97]]), np.ones((1, 2), np.int64))
    bundles.classifier(tmp_path / "without", exits=())
    with pytest.raises(UsageError, match="no early exits"):
        Bundle(tmp_path / "without").model(ids, mask, rule=ours.Patience(1))


def test_one_block_of_albert_has_exits_at_each_turn(tmp_path):
    config = bundles.config_of(
        "albert", "sequence_classification", layers=3, exits=(0, 1), labels=("x", "y")
    )
    bundles.write(tmp_path / "b", config)
    bundle = Bundle(tmp_path / "b")
    assert len(bundle.blocks) == 1 and bundle.model.exits == ["exit_00", "exit_01", "head"]
    assert bundle.reference_difference() < 1e-4
    assert len(list((tmp_path / "b" / "weights").glob("block*"))) == 1
