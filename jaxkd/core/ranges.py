"""Fields of configurations: which values are allowed, and whether they can change a result."""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable
from typing import Any

from jaxkd.core.names import did_you_mean


@dataclasses.dataclass(frozen=True)
class Range:
    """Which values a number, a word, or each element of a tuple may have."""

    at_least: int | float | None = None
    above: int | float | None = None
    at_most: int | float | None = None
    below: int | float | None = None
    one_of: tuple[str, ...] = ()
    types: tuple[type, ...] = ()  # instead of the annotation, which the command line reads

    def allows(self, value: Any) -> bool:
        if self.one_of:
            return value in self.one_of
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = {
            "at least": self.at_least, "above": self.above,
            "at most": self.at_most, "below": self.below,
        }  # fmt: skip
        return " and ".join(
            f"{word} {limit:g}" for word, limit in words.items() if limit is not None
        )


def field(
    default: Any = dataclasses.MISSING,
    *,
    default_factory: Any = dataclasses.MISSING,
    at_least: int | float | None = None,
    above: int | float | None = None,
    at_most: int | float | None = None,
    below: int | float | None = None,
    one_of: Iterable[str] = (),
    types: tuple[type, ...] = (),
    result: bool = True,
) -> Any:
    """A dataclass field with a range that `check` enforces.

    Args:
      at_least, above, at_most, below: limits of a number, or of each number of a tuple.
      one_of: the words that are allowed.
      types: types that are allowed besides the annotated one, of which the command line makes it.
      result: False for a field that cannot change what a stage computes beyond rounding; it is
        then left out of the stage's fingerprint.

    >>> @dataclasses.dataclass
    ... class Stage:
    ...     steps: int = field(10, at_least=1)
    >>> check(Stage(steps=0))
    Traceback (most recent call last):
    ValueError: steps is 0; it must be at least 1.
    """
    limits = Range(at_least, above, at_most, below, tuple(one_of), types)
    metadata = {"range": limits, "result": result}
    if default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check(value: Any, where: str = "") -> None:
    """Check the type and range of every field of a dataclass and of the dataclasses inside it.

    Args:
      where: the name of `value` in messages, e.g. "optimiser".
    Raises:
      ValueError: names the field, its value and what is allowed.
    """
    annotations = _annotations(type(value))
    for each in dataclasses.fields(value):
        name = f"{where}.{each.name}" if where else each.name
        _check_value(
            getattr(value, each.name),
            annotations.get(each.name, Any),
            each.metadata.get("range"),
            name,
        )


def _check_value(value: Any, annotation: Any, limits: Range | None, name: str) -> None:
    if not _is_of(value, annotation) and not (limits and isinstance(value, limits.types)):
        raise ValueError(
            f"{name} is {_in_words(value)}; it must be {_described(annotation)}. "
            f"Set it with --config....{name}=VALUE."
        )
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{name} is nan; it must be a number.")
    if limits is not None:
        elements = value if isinstance(value, tuple | list) else (value,)
        for element in elements:
            if isinstance(element, str | int | float) and not limits.allows(element):
                hint = (
                    did_you_mean(str(element), limits.one_of)
                    if limits.one_of
                    else f"it must be {limits}."
                )
                raise ValueError(f"{name} is {element!r}{'.' if limits.one_of else ';'} {hint}")
    if isinstance(value, float) and math.isinf(value):
        raise ValueError(f"{name} is {value}; it must be a finite number.")
    if dataclasses.is_dataclass(value):
        check(value, name)
    elif isinstance(value, dict):
        for key, element in value.items():
            if dataclasses.is_dataclass(element):
                check(element, f"{name}.{key}")


def _annotations(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields; Any for those that cannot be resolved."""
    try:
        return typing.get_type_hints(kind)
    except (NameError, TypeError, AttributeError):
        return {}


def _is_of(value: Any, annotation: Any) -> bool:
    """Whether a value is of the annotated type; True for annotations that say nothing simple."""
    origin = typing.get_origin(annotation)
    if annotation is Any or isinstance(annotation, str | typing.TypeVar):
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_is_of(value, each) for each in typing.get_args(annotation))
    if origin is tuple:
        arguments = typing.get_args(annotation)
        if not isinstance(value, tuple | list):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_is_of(element, arguments[0]) for element in value)
        return len(value) == len(arguments) and all(map(_is_of, value, arguments))
    if origin is not None:
        return not isinstance(origin, type) or isinstance(value, origin)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is None:
        return value is None
    return isinstance(value, annotation) if isinstance(annotation, type) else True


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}


def _described(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_described, typing.get_args(annotation)))
    if origin is tuple:
        inside = typing.get_args(annotation)
        if len(inside) == 2 and inside[1] is Ellipsis:
            return f"a tuple, each element {_described(inside[0])}"
        return f"a tuple of {len(inside)}: {', '.join(map(_described, inside))}"
    return getattr(annotation, "__name__", str(annotation))


def _in_words(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"
