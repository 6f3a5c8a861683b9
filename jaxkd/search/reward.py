"""How good a candidate is: what it lost in a short distillation, and how fast it answers."""

import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of a candidate; every reward is computed from it."""

    loss: float  # at the end of its short distillation
    milliseconds: float  # of its forward pass, median
    parameters: int = 0


@dataclasses.dataclass(frozen=True)
class Reward:
    """(1 - loss) * (milliseconds / (beta * teacher's milliseconds)) ** alpha.

    `beta` is the share of the teacher's time at which the second factor is 1. With a negative alpha
    a faster candidate is worth more; with a positive one a slower. The factor is weak: a candidate
    of half the time is worth 2 ** 0.06 = 1.042 times as much at alpha -0.06. Above a loss of 1 the
    reward is negative, and the factor then works against fast candidates.
    Source of the form: Trivedi et al. (2023), arXiv:2303.09639.

    >>> reward = Reward(teacher_milliseconds=10.0)
    >>> round(reward(Measured(loss=0.2, milliseconds=6.0)), 6)
    0.8
    >>> round(reward(Measured(loss=0.2, milliseconds=3.0)), 3)
    0.834
    """

    teacher_milliseconds: float
    alpha: float = -0.06
    beta: float = 0.6

    def __post_init__(self) -> None:
        for name in ("teacher_milliseconds", "beta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it is above 0.")
        if not math.isfinite(self.alpha):
            raise ValueError(f"alpha is {self.alpha}; it is a number.")

    def __call__(self, measured: Measured) -> float:
        """The reward; nan for a loss that is not finite."""
        if not math.isfinite(measured.loss):
            return float("nan")
        time = measured.milliseconds / (self.beta * self.teacher_milliseconds)
        return (1 - measured.loss) * time**self.alpha


def pareto_front(points: Sequence[Measured]) -> list[int]:
    """Numbers of the points that no other beats in loss and time at once, fastest first.

    >>> pareto_front([Measured(0.3, 5.0), Measured(0.2, 7.0), Measured(0.4, 6.0)])
    [0, 1]
    """
    front: list[int] = []
    best = math.inf
    for i in sorted(range(len(points)), key=lambda i: (points[i].milliseconds, points[i].loss)):
        if points[i].loss < best:
            front.append(i)
            best = points[i].loss
    return front
