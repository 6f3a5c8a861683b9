"""Suggest the allowed name that is closest to a misspelt one."""

import difflib
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
