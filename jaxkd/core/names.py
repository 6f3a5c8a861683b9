"""Suggest the allowed name that is closest to a misspelt one."""

import difflib
import fnmatch
from collections.abc import Iterable


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """A clause for an error message: the closest allowed name, and all of them.

    >>> did_you_mean("teecher", ["teacher", "student"])
    "Did you mean 'teacher'? Allowed: student, teacher."
    """
    allowed = sorted(allowed)
    close = difflib.get_close_matches(name, allowed, n=1)
    guess = f"Did you mean '{close[0]}'? " if close else ""
    return f"{guess}Allowed: {', '.join(allowed) if allowed else '(nothing)'}."


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is meant by one of some patterns with * and ?.

    >>> matches("embed/token", ["blocks/0/*", "embed/*"]), matches("embed/token", ["embed"])
    (True, False)
    """
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
