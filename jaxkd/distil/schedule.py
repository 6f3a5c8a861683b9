"""Numbers of an objective that change while it is minimised."""

import copy
import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxkd.core.names import did_you_mean


@dataclasses.dataclass
class Ramp:
    """Linear interpolation over the optimiser's steps; constant before the first, after the last.

    A function of the step alone, so that a resumed run continues where it was.

    >>> [round(float(Ramp(steps=(0, 10), values=(1.0, 3.0)).at(step)), 2) for step in (0, 5, 99)]
    [1.0, 2.0, 3.0]
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def at(self, step: Any) -> Any:
        return jnp.interp(step, jnp.array(self.steps, float), jnp.array(self.values, float))

    def check(self, name: str) -> None:
        """Raise ValueError unless the points are in order, a value for each step."""
        if len(self.steps) != len(self.values) or not self.steps:
            raise ValueError(
                f"{name} has {len(self.steps)} steps and {len(self.values)} values; give one value "
                "for each step."
            )
        if any(b <= a for a, b in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError(f"{name}.steps is {self.steps}; steps must increase.")


@dataclasses.dataclass
class Cycle(Ramp):
    """One value a step, over and over; with two terms, for instance, each learns in its turn.

    Source: Xin et al. (2021), BERxiT: the last exit and all exits learn in alternate steps.

    >>> [float(Cycle(values=(1.0, 0.0)).at(step)) for step in (0, 1, 2)]
    [1.0, 0.0, 1.0]
    """

    steps: tuple[int, ...] = ()  # none: every step has the next value
    values: tuple[float, ...] = (1.0, 0.0)

    def at(self, step: Any) -> Any:
        return jnp.array(self.values, float)[jnp.asarray(step) % len(self.values)]

    def check(self, name: str) -> None:
        """Raise ValueError unless there are values, and no steps."""
        if self.steps or not self.values:
            raise ValueError(
                f"{name} has {len(self.values)} values and steps={self.steps}; a Cycle has at "
                "least one value, and no steps."
            )


def at_step(term: Any, step: Any) -> Any:
    """The term at that step: fields with a ramp (`term.ramps`) have their value there."""
    now = copy.copy(term)
    for name, ramp in term.ramps.items():
        setattr(now, name, ramp.at(step))
    return now


def extremes(term: Any, field: str) -> tuple[float, float]:
    """The least and the largest value that field ever has."""
    if field not in term.ramps:
        return getattr(term, field), getattr(term, field)
    return min(term.ramps[field].values), max(term.ramps[field].values)


def check_ramps(term: Any, name: str) -> None:
    """Raise ValueError unless every ramp is one of a field that can change while compiled."""
    can = [field for field in ("weight", "temperature") if hasattr(term, field)]
    for field, ramp in term.ramps.items():
        if field not in can:
            raise ValueError(f"{name}.ramps has {field!r}. {did_you_mean(field, can)}")
        ramp.check(f"{name}.ramps.{field}")
