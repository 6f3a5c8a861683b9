"""Which shapes a student may have: every candidate of a space can be built and keeps its limits.

A candidate is chosen a dimension at a time, in the space's order. `allowed` says which values may
come next, so that an optimiser never has to throw a candidate away.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxkd.core.names import did_you_mean
from jaxkd.models import families

Candidate = Mapping[str, Any]  # dimension -> value, in the space's order
ORDER = ("layers", "width", "heads", "feed_forward", "activation")
OWN = "feed_forward_"  # and a number from 0: the width of one block's feed-forward


def is_size(name: str) -> bool:
    """Whether a dimension's values are numbers in order."""
    return name != "activation"


def own_feed_forwards(layers: int, values: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """A dimension for each of `layers` blocks.

    >>> own_feed_forwards(2, (8, 16))
    {'feed_forward_0': (8, 16), 'feed_forward_1': (8, 16)}
    """
    return {f"{OWN}{i}": tuple(values) for i in range(layers)}


@dataclasses.dataclass(frozen=True)
class Limit:
    """What a candidate may cost at most.

    The cost must not fall when a size grows (`layers`, `width`, `feed_forward`): a prefix is then
    refused as soon as its smallest completion costs too much.
    """

    name: str  # for messages: "parameters"
    cost: Callable[[Candidate], float]
    most: float


class Space:
    """The dimensions in which students of a teacher may differ, and their values.

    Args:
      teacher: config that everything else is taken from.
      choices: values of some of ORDER, each ascending; the others are the teacher's. Instead of
        `feed_forward` each block may have its own (`own_feed_forwards`); a candidate of fewer
        blocks has the smallest value where it has no block.
      limits: what candidates may cost at most.
      allows: raises ValueError for a config that cannot be had for another reason.
    Raises:
      ValueError: for an unknown dimension, values that are empty, repeated, not ascending or above
        the teacher's, or a space without any candidate.
    """

    def __init__(
        self,
        teacher: families.Config,
        choices: Mapping[str, Sequence[Any]],
        limits: Sequence[Limit] = (),
        allows: Callable[[families.Config], None] | None = None,
    ):
        self.teacher, self.limits, self._allows = teacher, tuple(limits), allows
        own = tuple(own_feed_forwards(teacher.layers, ()))
        for name in choices:
            if name not in (*ORDER, *own):
                raise ValueError(f"no dimension {name!r}. {did_you_mean(name, ORDER)}")
        order = (*ORDER, *own)
        self.values = {name: tuple(choices[name]) for name in order if name in choices}
        chosen = [name for name in own if name in choices]
        if chosen and ("feed_forward" in choices or len(chosen) < len(own)):
            raise ValueError(
                f"the dimensions {', '.join(choices)}: feed_forward for all blocks, or "
                f"{own[0]} to {own[-1]} for each of the teacher's."
            )
        for name, values in self.values.items():
            self._check(name, values)
        self.names = tuple(self.values)
        self._builds = functools.cache(self._can_be_built)
        self._allowed = functools.cache(self._values_after)
        if not self.names or not self.allowed({}):
            limits_text = ", ".join(f"{each.name} at most {each.most:g}" for each in self.limits)
            raise ValueError(
                f"the space {self.values} of {teacher.family} has no candidate"
                + (f" under {limits_text}." if self.limits else ".")
                + " Heads have to divide the width."
            )

    def _check(self, name: str, values: tuple[Any, ...]) -> None:
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} is {values}: at least one value, and each only once.")
        if is_size(name):
            field = "feed_forward" if name.startswith(OWN) else name
            largest = getattr(self.teacher, field)
            if list(values) != sorted(values) or values[0] < 1 or values[-1] > largest:
                raise ValueError(
                    f"{name} is {values}: ascending numbers from 1 to the teacher's {largest}."
                )

    @property
    def size(self) -> int:
        """Number of combinations, those included that are not allowed."""
        return math.prod(len(values) for values in self.values.values())

    def config(self, candidate: Candidate) -> families.Config:
        """The candidate's config: the teacher's but for what was chosen."""
        return config_of(self.teacher, candidate)

    def allowed(self, prefix: Candidate) -> tuple[Any, ...]:
        """Values of the next dimension with which `prefix` can become a candidate."""
        return self._allowed(tuple(prefix.values()))

    def _values_after(self, prefix: tuple[Any, ...]) -> tuple[Any, ...]:
        name = self.names[len(prefix)]
        values = self.values[name]
        if self._is_unused(name, dict(zip(self.names, prefix, strict=False))):
            values = values[:1]
        return tuple(value for value in values if self._possible((*prefix, value)))

    def _is_unused(self, name: str, candidate: Candidate) -> bool:
        """Whether the dimension is of a block that the candidate does not have."""
        layers = candidate.get("layers", self.teacher.layers)
        return name.startswith(OWN) and int(name.removeprefix(OWN)) >= layers

    def canonical(self, candidate: Candidate) -> Candidate:
        """The same shape with the smallest value where it has no block."""
        return {
            name: self.values[name][0] if self._is_unused(name, candidate) else value
            for name, value in candidate.items()
        }

    def _possible(self, prefix: tuple[Any, ...]) -> bool:
        smallest = self._smallest(prefix)
        if smallest is None:
            return False
        candidate = dict(zip(self.names, smallest, strict=True))
        return all(limit.cost(candidate) <= limit.most for limit in self.limits)

    def _smallest(self, prefix: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The completion with the smallest values that can be built; None: there is none."""
        if len(prefix) == len(self.names):
            return prefix if self._builds(prefix) else None
        completions = (
            self._smallest((*prefix, value)) for value in self.values[self.names[len(prefix)]]
        )
        return next((each for each in completions if each is not None), None)

    def _can_be_built(self, values: tuple[Any, ...]) -> bool:
        config = self.config(dict(zip(self.names, values, strict=True)))
        if config.heads % _queries_per_group(self.teacher):
            return False
        try:
            config.check()
            if self._allows is not None:
                self._allows(config)
        except ValueError:
            return False
        return True

    def complete(self, target: Candidate) -> Candidate:
        """The candidate nearest to `target`: each value replaced by the nearest that is allowed.

        >>> from jaxkd.models.bert import Config
        >>> space = Space(Config(width=8, heads=4), {"width": (4, 6, 8), "heads": (1, 2, 4)})
        >>> space.complete({"width": 6, "heads": 4})
        {'width': 6, 'heads': 2}
        """
        candidate: dict[str, Any] = {}
        for name in self.names:
            allowed, values = self.allowed(candidate), self.values[name]
            at = values.index(target[name])
            # The lower of two that are equally near.
            candidate[name] = min(
                allowed, key=lambda v: (abs(values.index(v) - at), values.index(v))
            )
        return candidate

    def excess(self, candidate: Candidate) -> dict[str, float]:
        """By how much a combination of values is over each limit; {}: it is a candidate."""
        if not self._builds(tuple(candidate.values())):
            return {"shape": 1.0}
        over = {limit.name: limit.cost(candidate) - limit.most for limit in self.limits}
        return {name: value for name, value in over.items() if value > 0}

    def draw(self, random: np.random.Generator) -> Candidate:
        """A candidate whose values are drawn with equal chances, one after the other."""
        candidate: dict[str, Any] = {}
        for name in self.names:
            allowed = self.allowed(candidate)
            candidate[name] = allowed[random.integers(len(allowed))]
        return candidate

    def all(self) -> list[Candidate]:
        """Every candidate, in lexicographic order; for small spaces."""
        return list(self._from({}))

    def _from(self, prefix: Candidate) -> Iterator[Candidate]:
        if len(prefix) == len(self.names):
            yield prefix
            return
        name = self.names[len(prefix)]
        for value in self.allowed(prefix):
            yield from self._from({**prefix, name: value})

    def with_fewer_layers(self) -> list[Candidate]:
        """The candidates of the largest values but for their number of layers."""
        largest = {name: values[-1] for name, values in self.values.items()}
        if "activation" in largest:
            largest["activation"] = self.values["activation"][0]
        shapes = [largest | {"layers": n} for n in self.values.get("layers", ())]
        shapes = [self.canonical(candidate) for candidate in shapes]
        return [candidate for candidate in shapes if not self.excess(candidate)]

    def count(self, most: int) -> int:
        """The number of candidates, at most `most`."""
        return sum(1 for _ in itertools.islice(self._from({}), most))

    def key(self, candidate: Candidate) -> str:
        """A name for folders and tables: `layers-3_width-384`."""
        used = (name for name in self.names if not self._is_unused(name, candidate))
        return "_".join(f"{name}-{candidate[name]}" for name in used)


def derived(teacher: families.Config) -> dict[str, tuple[Any, ...]]:
    """A few values of each size, from the teacher's own down.

    Widths are multiples of a head's, heads divide the teacher's, so that a student can be cut from
    the teacher as well as drawn.

    >>> from jaxkd.models.bert import Config
    >>> derived(Config(layers=6, width=384, heads=12, feed_forward=1536))["layers"]
    (2, 3, 4, 5, 6)
    """
    size, each = teacher.key_width, _queries_per_group(teacher)
    quarters = [fraction / 4 for fraction in (1, 2, 3, 4)]
    groups = teacher.heads // each
    heads = sorted({each * max(1, round(groups * quarter)) for quarter in quarters})
    layers = sorted({max(1, round(teacher.layers * part / 6)) for part in (2, 3, 4, 5, 6)})
    return {
        "layers": tuple(layers),
        "width": tuple(sorted({max(1, count * teacher.width // teacher.heads) for count in heads}))
        if teacher.width == teacher.heads * size
        else (teacher.width,),
        "heads": tuple(heads),
        "feed_forward": tuple(
            sorted({max(1, round(teacher.feed_forward * quarter)) for quarter in quarters})
        ),
    }


def config_of(teacher: families.Config, candidate: Candidate) -> families.Config:
    """The config of a student: the teacher's but for what was chosen."""
    own = [value for name, value in candidate.items() if name.startswith(OWN)]
    changes = {
        name: value
        for name, value in candidate.items()
        if name != "layers" and not name.startswith(OWN)
    }
    if "heads" in changes and getattr(teacher, "kv_heads", 0):
        changes["kv_heads"] = changes["heads"] // _queries_per_group(teacher)
    layers = candidate.get("layers", teacher.layers)
    if own:
        changes["feed_forwards"] = tuple(own[:layers])
    return dataclasses.replace(families.with_layers(teacher, layers), **changes)


def parameters_limit(teacher: families.Config, most: float) -> Limit:
    """At most that many parameters, the embedding's included."""

    @functools.cache
    def count(sizes: tuple[tuple[str, Any], ...]) -> int:
        shapes = families.build(config_of(teacher, dict(sizes))).shapes
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

    return Limit("parameters", lambda candidate: count(tuple(candidate.items())), float(most))


def _queries_per_group(config: families.Config) -> int:
    """Query heads that share a key and value head: heads come in multiples of it."""
    return config.heads // (getattr(config, "kv_heads", 0) or config.heads)
