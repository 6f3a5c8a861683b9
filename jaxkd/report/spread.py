"""What several seeds say together: a results file's values by seed, their mean and spread."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ABSENT = "–"  # neither 0 nor nan: nothing was measured


def at(tree: Any, *path: str) -> Any:
    """The value at a path of nested dicts, None where a step of it is absent.

    >>> at({"data": {"rows": {"test": 7}}}, "data", "rows", "test"), at({}, "data", "rows")
    (7, None)
    """
    for name in path:
        if not isinstance(tree, Mapping) or name not in tree:
            return None
        tree = tree[name]
    return tree


def seeds(results: Mapping) -> list[str]:
    """The seeds of a run as the results file spells them."""
    return [str(seed) for seed in results.get("seeds") or ()]


def curve(results: Mapping, model: str, split: str, metric: str) -> dict[str, dict[int, float]]:
    """What was logged while a model trained: {seed: {step: value}}, seeds without any left out.

    A step that was logged twice (a run killed and resumed) counts once, with its last value.
    """
    logged = {
        seed: {
            entry["step"]: float(entry[metric])
            for entry in at(results, "curves", model, seed) or ()
            if entry.get("split") == split and entry.get(metric) is not None
        }
        for seed in seeds(results)
    }
    return {seed: dict(sorted(steps.items())) for seed, steps in logged.items() if steps}


def shared_steps(curves: Iterable[Mapping[int, float]]) -> list[int]:
    """The steps at which every one of the curves has a value."""
    steps = [set(each) for each in curves]
    return sorted(set.intersection(*steps)) if steps else []


def values(
    results: Mapping, model: str, split: str, metric: str, reduce: str | None = None
) -> dict[str, float]:
    """{seed: value} of the seeds that have one.

    The finished model's evaluation, unless the split is "train" or `reduce` ("last", "mean")
    chooses the values logged during training.

    Raises:
      ValueError: if reduce is something else.
    """
    if reduce not in (None, "last", "mean"):
        raise ValueError(f"reduce is {reduce!r}; allowed: 'last', 'mean', or none at all")
    if reduce is not None or split == "train":
        logged = curve(results, model, split, metric)
        pick = statistics.fmean if reduce == "mean" else lambda numbers: list(numbers)[-1]
        return {seed: pick(steps.values()) for seed, steps in logged.items()}
    measured = {}
    for seed in seeds(results):
        value = at(results, "models", model, "seeds", seed, split, metric)
        if value is not None:
            measured[seed] = float(value)
    return measured


def number(value: float | None, signed: bool = False) -> str:
    """A single number, to four digits, three below 1; whole numbers from a thousand on.

    >>> number(6.01234), number(403.41), number(0.0429), number(34249.3), number(0.000123)
    ('6.012', '403.4', '0.0429', '34,249', '0.000123')
    >>> number(None), number(0.0), number(0.5, signed=True)
    ('–', '0', '+0.500')
    """
    if value is None:
        return ABSENT
    if not math.isfinite(value):
        return "not finite"
    sign = "+" if signed else ""
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:{sign}.3g}"
    digits = 4 if abs(value) >= 1 else 3
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded value
    decimals = max(0, digits - 1 - exponent)
    return f"{value:{sign},.{decimals}f}"


def mean_std(numbers: Iterable[float], of: int | None = None, signed: bool = False) -> str:
    """Mean ± sample standard deviation, the latter to two digits; one number alone has no ±.

    `of` is how many numbers there should be; where some are missing, n is said.

    >>> mean_std([6.0, 6.1, 6.2]), mean_std([6.0]), mean_std([]), mean_std([6.0, 6.2], of=3)
    ('6.10 ± 0.10', '6.000', '–', '6.10 ± 0.14 (n = 2)')
    """
    numbers = list(numbers)
    if not numbers:
        return ABSENT
    missing = f" (n = {len(numbers)})" if of is not None and len(numbers) != of else ""
    if len(numbers) == 1 or not all(map(math.isfinite, numbers)):
        return number(statistics.fmean(numbers), signed) + missing
    mean, std = statistics.fmean(numbers), statistics.stdev(numbers)
    if std < 1e-6:  # equal, or as good as: two digits of it would make an absurd mean
        return f"{number(mean, signed)} ± {std:.1g}{missing}"
    decimals = max(0, 1 - math.floor(math.log10(std)))
    return f"{mean:{'+' if signed else ''},.{decimals}f} ± {std:,.{decimals}f}{missing}"


def t_quantile(inside: float, degrees: int) -> float:
    """The t for which P(|T| <= t) = `inside`, T of Student's distribution.

    Source: Abramowitz and Stegun (1964), 26.7.3 and 26.7.4: a finite sum in the angle
    atan(t / sqrt(degrees)), inverted here by bisection.

    >>> round(t_quantile(0.95, 2), 4)
    4.3027
    """

    def probability(angle: float) -> float:
        sine, cosine = math.sin(angle), math.cos(angle)
        odd = degrees % 2
        term = cosine if odd else 1.0
        total = 0.0
        for k in range(1 + odd, degrees, 2):
            total += term
            term *= cosine**2 * k / (k + 1)
        return 2 / math.pi * (angle + sine * total) if odd else sine * total

    low, high = 0.0, math.pi / 2
    for _ in range(100):  # each halves: far below float64's resolution
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) < inside else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def trained_steps(results: Mapping, model: str) -> list[int]:
    """The last optimiser step of each seed's training; [] for a model that was not trained."""
    logged = at(results, "curves", model) or {}
    last = [max((e["step"] for e in logged.get(s) or ()), default=0) for s in seeds(results)]
    return [step for step in last if step]


def interval(differences: Sequence[float], inside: float = 0.95) -> tuple[float, float] | None:
    """Student's interval for the mean of paired differences; None for fewer than two."""
    n = len(differences)
    if n < 2 or not all(map(math.isfinite, differences)):
        return None
    mean = statistics.fmean(differences)
    half = t_quantile(inside, n - 1) * statistics.stdev(differences) / math.sqrt(n)
    return mean - half, mean + half


def between(bounds: tuple[float, float] | None) -> str:
    """An interval in words, to two digits of its half-width.

    >>> between((-0.12417, 0.07331)), between(None)
    ('-0.124 to +0.073', '–')
    """
    if bounds is None:
        return ABSENT
    half = (bounds[1] - bounds[0]) / 2
    decimals = max(0, 1 - math.floor(math.log10(half))) if half > 1e-6 else 6
    return " to ".join(f"{bound:+.{decimals}f}" for bound in bounds)


def paired(results: Mapping, comparison: Mapping) -> dict[str, float]:
    """{seed: value of `model` - value of `baseline`}, for the seeds that have both."""
    one, other = (
        values(
            results,
            comparison[side],
            comparison.get("split", "validation"),
            comparison.get("metric", "loss"),
            comparison.get("reduce"),
        )
        for side in ("model", "baseline")
    )
    return {seed: one[seed] - other[seed] for seed in one if seed in other}
