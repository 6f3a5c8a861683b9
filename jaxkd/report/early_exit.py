"""Early exit in a report: what was measured, and which settings are chosen, by which rows."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxkd.report import spread
from jaxkd.report.described import about, factor
from jaxkd.report.spread import at

POINTS_BELOW = 0.005  # half a point: how far below the whole model's score a setting may be
TIMES_AS_FAST = 1.5  # as the whole model, at equal time
SLOWER = 1.02  # times as slow as another model a setting may be to have its speed
OURS = "optimal_stopping"


def measured(results: Mapping, stage: str) -> list[Mapping[str, Any]]:
    """What the stage measured, seed by seed."""
    by_seed = at(results, "early_exit", stage) or {}
    return [by_seed[seed] for seed in spread.seeds(results) if seed in by_seed]


def batch_sizes(runs: Sequence[Mapping]) -> list[str]:
    return list(whole_model(runs)["milliseconds"])


def has_energy(runs: Sequence[Mapping]) -> bool:
    return not any(run["no_energy"] for run in runs)


def scale(results: Mapping, run: Mapping) -> float:
    """What a score is multiplied by to be shown."""
    return factor(about(results, run["metric"])["unit"])


def title(rule: str) -> str:
    return rule.replace("_", " ")


def curve(
    results: Mapping, runs: Sequence[Mapping], rule: str, size: str
) -> list[tuple[float, float]]:
    """(milliseconds, score) of a rule's settings, means over the seeds, by time."""
    points = []
    for same in zip(*(run["rules"][rule] for run in runs), strict=True):
        milliseconds = statistics.fmean(point["milliseconds"][size] for point in same)
        score = statistics.fmean(point["score"] for point in same)
        points.append((milliseconds, scale(results, runs[0]) * score))
    return sorted(points)


def area(points: Iterable[Mapping], size: str, start: float, end: float) -> float | None:
    """The mean score over a range of time, if at any time the best setting so far is used.

    Which is best so far, the calibration rows say. None where no setting is as fast as the range's
    start.

    >>> points = [
    ...     {"milliseconds": {"1": time}, "score": score, "calibration_score": score}
    ...     for time, score in ((1, 0.5), (2, 0.8), (3, 0.7))
    ... ]
    >>> round(area(points, "1", 1.0, 3.0), 6)
    0.65
    """
    ordered = sorted(
        (point["milliseconds"][size], point["calibration_score"], point["score"])
        for point in points
    )
    if not ordered or ordered[0][0] > start or end <= start:
        return None
    best, chosen, total, time = -float("inf"), 0.0, 0.0, start
    for milliseconds, calibration_score, score in ordered:
        if milliseconds > time:
            total += chosen * (min(milliseconds, end) - time)
            time = min(milliseconds, end)
        if calibration_score > best:
            best, chosen = calibration_score, score
    return (total + chosen * (end - time)) / (end - start)


def at_equal_score(run: Mapping, rule: str) -> Mapping | None:
    """The fastest setting within half a point of the whole model, by the calibration split."""
    floor = whole_model([run])["calibration_score"] - POINTS_BELOW
    allowed = [point for point in run["rules"][rule] if point["calibration_score"] >= floor]
    return min(allowed, key=calibration_time, default=None)


def at_equal_time(run: Mapping, rule: str, size: str) -> Mapping | None:
    """The best setting of those 1.5 times as fast as the whole model, by the calibration split."""
    limit = whole_model([run])["milliseconds"][size] / TIMES_AS_FAST
    allowed = [point for point in run["rules"][rule] if point["milliseconds"][size] <= limit]
    return max(allowed, key=lambda point: point["calibration_score"], default=None)


def at_speed_of(run: Mapping, rule: str, rival: str, size: str) -> Mapping | None:
    """The best setting at most 2% slower than another model, by the calibration split."""
    limit = SLOWER * run["models"][rival]["milliseconds"][size]
    allowed = [point for point in run["rules"][rule] if point["milliseconds"][size] <= limit]
    return max(allowed, key=lambda point: point["calibration_score"], default=None)


def best_so_far(run: Mapping, rule: str, size: str, share: float) -> float | None:
    """The score of the best setting within a share of the whole model's time; None: none is."""
    limit = share * whole_model([run])["milliseconds"][size]
    allowed = [point for point in run["rules"][rule] if point["milliseconds"][size] <= limit]
    best = max(allowed, key=lambda point: point["calibration_score"], default=None)
    return None if best is None else best["score"]


def calibration_time(point: Mapping) -> float:
    return point["calibration_expected_milliseconds"]


def whole_model(runs: Sequence[Mapping]) -> Mapping:
    return runs[0]["models"][runs[0]["full"]]


def shared_start(run: Mapping, size: str) -> float:
    """The time of the slowest rule's fastest setting: all rules can be compared from there on."""
    return max(
        min(point["milliseconds"][size] for point in points) for points in run["rules"].values()
    )


def at_equal_score_or_whole(run: Mapping, name: str) -> Mapping | None:
    """A model's numbers, or a rule's at equal score; None for what this data set does not have."""
    if name in run["models"]:
        return run["models"][name]
    if name not in run["rules"]:
        return None
    return at_equal_score(run, name) or whole_model([run])
