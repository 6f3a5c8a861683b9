"""The fields of an experiment as the command line shows them: value, type, range, meaning."""

import ast
import dataclasses
import functools
import inspect
import io
import textwrap
import tokenize
import typing
from collections.abc import Iterator
from typing import Any


def field_names(value: Any) -> list[str]:
    """Names that can follow a dot: keys of a dict, fields of a dataclass; [] for anything else."""
    if isinstance(value, dict):
        return list(value)
    is_instance = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return [f.name for f in dataclasses.fields(value)] if is_instance else []


def member(value: Any, name: str) -> Any:
    return value[name] if isinstance(value, dict) else getattr(value, name)


def shown_fields(value: Any, prefix: str = "") -> Iterator[str]:
    """One line a field: --config.NAME=VALUE  # type, range: the comment beside it in the source."""
    for name in field_names(value):
        inner = member(value, name)
        if field_names(inner):
            yield from shown_fields(inner, f"{prefix}{name}.")
        else:
            words = "" if isinstance(value, dict) else field_words(type(value), name)
            yield f"--config.{prefix}{name}={inner!r}" + (f"  # {words}" if words else "")


def field_words(kind: type, name: str) -> str:
    """Type, range and comment of a dataclass's field.

    >>> from jaxkd.train.optimiser import AdamW
    >>> field_words(AdamW, "warmup")
    'float, at least 0 and below 1: share of the updates'
    """
    field = next(f for f in dataclasses.fields(kind) if f.name == name)
    limits = field.metadata.get("range")
    described = [type_name(kind, name)]
    if limits is not None and str(limits):
        described.append(str(limits))
    if limits is not None and limits.one_of:
        described.append(f"one of {' | '.join(limits.one_of)}")
    comment = comments_of(kind).get(name, "")
    return ", ".join(described) + (f": {comment}" if comment else "")


def type_name(kind: type, name: str) -> str:
    """The annotated type of a field, in words."""
    try:
        annotation = typing.get_type_hints(kind)[name]
    except (NameError, TypeError, AttributeError):
        annotation = next(f.type for f in dataclasses.fields(kind) if f.name == name)
    text = annotation.__name__ if type(annotation) is type else str(annotation)
    return text.replace("typing.", "")


def comments_of(kind: type) -> dict[str, str]:
    """Field -> the comment behind it in the source, or else the lines above it."""
    comments: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if dataclasses.is_dataclass(each):
            comments |= _comments(each)
    return comments


@functools.cache
def _comments(kind: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(kind))
        lines = {
            token.start[0]: token.string.lstrip("# ").strip()
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT and not token.string.startswith("# fmt")
        }
        body = ast.parse(source).body[0].body
    except (OSError, TypeError, SyntaxError, tokenize.TokenError, IndexError):
        return {}
    numbered = source.splitlines()
    comments: dict[str, str] = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above = []
            number = node.lineno - 1
            while number in lines and numbered[number - 1].lstrip().startswith("#"):
                above.insert(0, lines[number])
                number -= 1
            comments[node.target.id] = lines.get(node.end_lineno) or " ".join(above)
    return comments


def resolve_annotations(value: Any) -> None:
    """Replace annotations that are strings by types, in the dataclasses of an experiment.

    A file with `from __future__ import annotations` has strings, which the command line cannot
    parse values by.

    Raises:
      ValueError: for an annotation that names no type; names the class and the field.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        fields = dataclasses.fields(kind)
        if any(isinstance(field.type, str) for field in fields):
            try:
                hints = typing.get_type_hints(kind)
            except (NameError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{kind.__name__}: an annotation of its fields is no type that can be found "
                    f"({error}). Import what it names at the top of its file."
                ) from error
            for field in fields:
                field.type = hints.get(field.name, field.type)
    for name in field_names(value):
        resolve_annotations(member(value, name))
