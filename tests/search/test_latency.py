"""The table of times: exact where times are a weighted sum, monotone, judged on other shapes."""

import dataclasses

import numpy as np
import pytest

from jaxkd.models import families
from jaxkd.models.bert import Config
from jaxkd.search.latency import Latency, features, fitted, in_turns
from jaxkd.search.space import Space

TEACHER = Config(
    vocabulary=31, layers=6, width=48, heads=4, feed_forward=96, max_length=16, head="bare"
)
SPACE = Space(
    TEACHER, {"layers": (1, 2, 4, 6), "width": (24, 48), "heads": (2, 4), "feed_forward": (24, 96)}
)


def test_times_that_are_a_weighted_sum_are_found_again():
    true = np.array([0.3, 0.01, 0.05, 1e-3, 2e-5, 1e-5, 1e-4, 0.02])
    shapes = [SPACE.config(candidate) for candidate in SPACE.all()]
    np.random.default_rng(0).shuffle(shapes)
    times = [float(features(shape) @ true) for shape in shapes]
    table = fitted(shapes[::2], times[::2], shapes[1::2], times[1::2])
    np.testing.assert_allclose(table.errors, 0.0, atol=1e-6)
    assert table.within == 1.0
    assert table(shapes[1]) == pytest.approx(times[1])


def test_more_of_anything_never_takes_less_time():
    draw = np.random.default_rng(0)
    shapes = [SPACE.config(candidate) for candidate in SPACE.all()]
    table = fitted(shapes, draw.uniform(1, 9, len(shapes)))  # whatever was measured
    for candidate in SPACE.all():
        for name in ("layers", "width", "feed_forward"):
            larger = [v for v in SPACE.values[name] if v > candidate[name]]
            for value in larger:
                more = dataclasses.replace(SPACE.config(candidate), **{name: value})
                assert table(more) >= table(SPACE.config(candidate))


@pytest.mark.parametrize("of", ["jit", "onnx", "bundle"])
def test_every_way_to_run_is_timed(of):
    latency = Latency(of=of, length=8, rounds=1)
    latency.check()
    small = families.with_layers(TEACHER, 1)
    timed = [latency.timed(c, families.build(c).init(0)) for c in (small, TEACHER)]
    assert all(0 < each < 1000 for each in in_turns(timed, 1))


def test_functions_take_turns():
    order = []
    first, second = (lambda name=name: order.append(name) or 1.0 for name in "ab")
    assert in_turns([first, second], 3) == [1.0, 1.0]
    assert "".join(order) == "ababab"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(of="bundle", batch=4), "a row at a time"),
        (dict(fitted_on=3), "at least 6 shapes"),
        (dict(weights="int8"), "has float32"),
    ],
)
def test_what_cannot_be_timed_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Latency(**wrong).check()
