"""Runs of one experiment with other seeds, as one results file."""

from collections.abc import Mapping, Sequence
from typing import Any

# What has to be equal: the seeds are of one experiment on the same data.
EQUAL = ("data", "metrics", "primary", "terms")
BY_SEED = (
    "stages", "models", "examples", "early_exit", "search", "optimizers", "exports", "curves",
)  # fmt: skip
SIZES = ("layers", "width", "parameters", "megabytes")


def with_sizes(known: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A model's numbers with those of another seed; sizes that differ become [least, most].

    >>> with_sizes({"layers": 3}, {"layers": 6}), with_sizes({"layers": [3, 6]}, {"layers": 4})
    ({'layers': [3, 6]}, {'layers': [3, 6]})
    """
    together = {**known, **new}
    for name in SIZES:
        both = [side[name] for side in (known, new) if side.get(name) is not None]
        values = [v for each in both for v in (each if isinstance(each, list) else [each])]
        if len(set(values)) > 1:
            together[name] = [min(values), max(values)]
    return together


def joined(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One results file of runs with other seeds; `parts` says where and how each of them ran.

    Raises:
      ValueError: if they are not of one experiment and variant, on the same data, or if a seed is
        in two of them.
    """
    first = runs[0]
    if len(runs) == 1:
        return dict(first)
    name = f"{first['experiment']}:{first['variant']}"
    together: dict[str, Any] = dict(first)
    for run in runs[1:]:
        for part in ("experiment", "variant", *EQUAL):
            if run.get(part) != first.get(part):
                raise ValueError(
                    f"{name}: two of the files differ in {part!r}, {_difference(first, run, part)}."
                    " Seeds are joined if all else is equal; give runs of one configuration."
                )
        double = set(together["seeds"]) & set(run["seeds"])
        if double:
            raise ValueError(
                f"{name}: seed {min(double)} is in two of the files. Give each seed once."
            )
        together["seeds"] = [*together["seeds"], *run["seeds"]]
        for part in BY_SEED:
            together[part] = _merged(together.get(part) or {}, run.get(part) or {})
    together["seeds"] = sorted(together["seeds"])
    together["parts"] = [
        {part: run.get(part) for part in ("seeds", "command", "where", "stages")} for run in runs
    ]
    return together


def _merged(known: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Both trees; where both have a number, the first's."""
    together = with_sizes(new, known)
    for name in known.keys() & new.keys():
        if isinstance(known[name], Mapping) and isinstance(new[name], Mapping):
            together[name] = _merged(known[name], new[name])
    return together


def _difference(first: Mapping[str, Any], other: Mapping[str, Any], part: str) -> str:
    """The first entry that differs, in words."""
    one, two = first.get(part), other.get(part)
    while isinstance(one, Mapping) and isinstance(two, Mapping):
        name = next(n for n in {**one, **two} if one.get(n) != two.get(n))
        part, one, two = f"{part}.{name}", one.get(name), two.get(name)
    return f"{part}: {str(one)[:80]!r} and {str(two)[:80]!r}"
