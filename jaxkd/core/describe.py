"""What a configuration is, as JSON: the class and fields of every dataclass in it."""

import dataclasses
import enum
import functools
import pathlib
from typing import Any


def described(value: Any) -> Any:
    """JSON of everything in a value that can change a result.

    A dataclass becomes [module, qualified name, fields], so that two classes with equal fields
    differ. Fields marked `metadata={"result": False}` are left out (core/ranges.py).

    Raises:
      TypeError: for an object whose content cannot be seen.

    >>> described({"rate": (1, 2.5)})
    {'rate': [1, 2.5]}
    """
    if isinstance(value, functools.partial):
        return ["partial", *map(described, (value.func, value.args, value.keywords))]
    if isinstance(value, type) or callable(value) and hasattr(value, "__qualname__"):
        return [value.__module__, value.__qualname__]
    if dataclasses.is_dataclass(value):
        fields = {
            field.name: described(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.metadata.get("result", True)
        }
        return [type(value).__module__, type(value).__qualname__, fields]
    if isinstance(value, enum.Enum):
        return [type(value).__module__, type(value).__qualname__, value.name]
    if isinstance(value, dict):
        return {str(key): described(element) for key, element in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((described(element) for element in value), key=str)
    if isinstance(value, tuple | list):
        return [described(element) for element in value]
    if isinstance(value, pathlib.Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"{value!r} ({type(value).__name__}) cannot be part of a configuration: use numbers, text, "
        "tuples, dicts and dataclasses of these."
    )
