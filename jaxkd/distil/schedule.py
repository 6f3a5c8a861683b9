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
