"""The reward by hand, and which points no other beats."""

import math

import numpy as np
import pytest

from jaxkd.search.reward import Measured, Reward, pareto_front


def test_the_reward_is_that_of_a_hand_calculation():
    reward = Reward(teacher_milliseconds=20.0, alpha=-0.5, beta=0.5)
    # (1 - 0.36) * (2.5 / (0.5 * 20)) ** -0.5 = 0.64 * 2
    assert reward(Measured(loss=0.36, milliseconds=2.5)) == pytest.approx(1.28)
    assert reward(Measured(loss=0.36, milliseconds=10.0)) == pytest.approx(0.64)
    # A positive alpha rewards the slower one; above a loss of 1 a negative alpha does.
    slow, fast = Measured(0.36, 10.0), Measured(0.36, 2.5)
    turned = Reward(teacher_milliseconds=20.0, alpha=0.5, beta=0.5)
    assert turned(slow) > turned(fast)
    assert reward(Measured(1.5, 10.0)) > reward(Measured(1.5, 2.5))
    assert math.isnan(reward(Measured(float("inf"), 1.0)))


@pytest.mark.parametrize(
    "wrong", [{"teacher_milliseconds": 0.0}, {"beta": -1.0}, {"alpha": math.inf}]
)
def test_numbers_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Reward(**({"teacher_milliseconds": 1.0} | wrong))


def test_the_front_is_that_of_all_pairs():
    random = np.random.default_rng(0)
    points = [Measured(*random.integers(0, 12, 2).astype(float)) for _ in range(60)]
    beaten = {
        i for i, a in enumerate(points) for b in points
        if (b.loss <= a.loss and b.milliseconds <= a.milliseconds)
        and (b.loss < a.loss or b.milliseconds < a.milliseconds)
    }  # fmt: skip
    front = pareto_front(points)
    assert not set(front) & beaten
    expected = {(p.loss, p.milliseconds) for i, p in enumerate(points) if i not in beaten}
    assert [(points[i].loss, points[i].milliseconds) for i in front] == sorted(
        expected, key=lambda point: point[1]
    )
