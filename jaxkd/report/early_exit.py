"""Early exit in a report: score over milliseconds, settings at equal score and equal time."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxkd.report import spread
from jaxkd.report.described import about, column_title, factor, label
from jaxkd.report.markup import Table
from jaxkd.report.spread import ABSENT, at, mean_std, number
from jaxkd.report.tables import make_table, over_seeds

POINTS_BELOW = 0.005  # half a point: how far below the whole model's score a setting may be
SHARE_OF_TIME = 2 / 3  # of the whole model's time: 1.5 times as fast


def measured(results: Mapping, stage: str) -> list[Mapping[str, Any]]:
    """What the stage measured, seed by seed."""
    by_seed = at(results, "early_exit", stage) or {}
    return [by_seed[seed] for seed in spread.seeds(results) if seed in by_seed]


def batch_sizes(runs: Sequence[Mapping]) -> list[str]:
    return list(_full(runs)["milliseconds"])


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
    """The mean over a range of time of the best score that settings reach in no more time.

    None where no setting is as fast as the range's start.

    >>> points = [{"milliseconds": {"1": t}, "score": s} for t, s in ((1, 0.5), (2, 0.8), (3, 0.7))]
    >>> round(area(points, "1", 1.0, 3.0), 6)
    0.65
    """
    ordered = sorted((point["milliseconds"][size], point["score"]) for point in points)
    if not ordered or ordered[0][0] > start or end <= start:
        return None
    best, total, time = -float("inf"), 0.0, start
    for milliseconds, score in ordered:
        if milliseconds > time:
            total += best * (min(milliseconds, end) - time)
            time = min(milliseconds, end)
        best = max(best, score)
    return (total + best * (end - time)) / (end - start)


def at_equal_score(run: Mapping, rule: str) -> Mapping | None:
    """The fastest setting within half a point of the whole model, by the calibration split."""
    floor = _full([run])["calibration_score"] - POINTS_BELOW
    allowed = [point for point in run["rules"][rule] if point["calibration_score"] >= floor]
    return min(allowed, key=_calibration_time, default=None)


def at_equal_time(run: Mapping, rule: str) -> Mapping | None:
    """The best setting of two thirds of the time of all blocks, by the calibration split."""
    limit = SHARE_OF_TIME * run["exit_milliseconds"][-1]
    allowed = [point for point in run["rules"][rule] if _calibration_time(point) <= limit]
    return max(allowed, key=lambda point: point["calibration_score"], default=None)


def _calibration_time(point: Mapping) -> float:
    return point["calibration_expected_milliseconds"]


def _full(runs: Sequence[Mapping]) -> Mapping:
    return runs[0]["models"][runs[0]["full"]]


def settings_table(results: Mapping, runs: Sequence[Mapping], choose: Any, caption: str) -> Table:
    """Each rule at the setting that `choose` takes, beside the models without early exit."""
    sizes, first = batch_sizes(runs), runs[0]
    rows = []
    for name, model in first["models"].items():
        each = [run["models"][name] for run in runs]
        blocks = model["layers"]
        rows.append([label(results, name), ABSENT, *_cells(results, runs, each, str(blocks))])
    for rule in first["rules"]:
        chosen = [(run, choose(run, rule)) for run in runs]
        known = [(run, point) for run, point in chosen if point is not None]
        if not known:
            rows.append([title(rule), "none", *[ABSENT] * (2 + 2 * len(sizes))])
            continue
        named = ", ".join(dict.fromkeys(point["setting"] for _, point in known))
        depth = mean_std(
            sum(s * block for s, block in zip(point["share"], run["exits"], strict=True))
            for run, point in known
        )
        each = [point for _, point in known]
        rows.append([title(rule), named, *_cells(results, [r for r, _ in known], each, depth)])
    header = (
        "rule or model",
        "setting",
        column_title(results, first["metric"]),
        "blocks a row",
        *(f"ms a row, batch {size}" for size in sizes),
        *(f"times as fast, batch {size}" for size in sizes),
    )
    return make_table(results, header, rows, f"{caption} {over_seeds(results)}")


def _cells(
    results: Mapping, runs: Sequence[Mapping], points: Sequence[Mapping], blocks: str
) -> list[str]:
    count, sizes = len(spread.seeds(results)), batch_sizes(runs)
    scores = [scale(results, runs[0]) * point["score"] for point in points]
    times = [
        mean_std((point["milliseconds"][size] for point in points), of=count) for size in sizes
    ]
    faster = [
        mean_std(
            (
                _full([run])["milliseconds"][size] / point["milliseconds"][size]
                for run, point in zip(runs, points, strict=True)
            ),
            of=count,
        )
        for size in sizes
    ]
    return [mean_std(scores, of=count), blocks, *times, *faster]


def areas_table(results: Mapping, runs: Sequence[Mapping]) -> Table:
    """Mean score over the range of time that all rules cover, for each rule."""
    sizes, rows = batch_sizes(runs), []
    for rule in runs[0]["rules"]:
        row = [title(rule)]
        for size in sizes:
            values = []
            for run in runs:
                whole = _full([run])["milliseconds"][size]
                mean = area(run["rules"][rule], size, _start(run, size), whole)
                values += [] if mean is None else [scale(results, run) * mean]
            row.append(mean_std(values, of=len(spread.seeds(results))))
        rows.append(row)
    what = column_title(results, runs[0]["metric"])
    header = ("rule", *(f"mean {what} over time, batch {size}" for size in sizes))
    caption = (
        "The best score that a setting reaches in no more time, averaged over time: from the "
        "slowest of the rules' fastest settings to the whole model."
    )
    return make_table(results, header, rows, f"{caption} {over_seeds(results)}")


def _start(run: Mapping, size: str) -> float:
    """The time of the slowest rule's fastest setting: all rules can be compared from there on."""
    return max(
        min(point["milliseconds"][size] for point in points) for points in run["rules"].values()
    )


def expectations_table(results: Mapping, runs: Sequence[Mapping]) -> Table | None:
    """What optimal stopping was expected to reach, and what it reached."""
    if "optimal_stopping" not in runs[0]["rules"]:
        return None
    rows = []
    for same in zip(*(run["rules"]["optimal_stopping"] for run in runs), strict=True):
        keys = (
            "policy_quality", "calibration_quality", "quality",
            "policy_milliseconds", "expected_milliseconds",
        )  # fmt: skip
        cells = [
            mean_std((point[key] for point in same), of=len(spread.seeds(results))) for key in keys
        ]
        measured_at = batch_sizes(runs)[0]
        cells.append(mean_std(point["milliseconds"][measured_at] for point in same))
        rows.append([same[0]["setting"], *cells])
    header = (
        "price of the whole time", "quality, expected", "on the calibration rows", "evaluated",
        "ms, expected", "by the exits taken", f"measured, batch {batch_sizes(runs)[0]}",
    )  # fmt: skip
    caption = (
        "Expected: of the chain estimated on the calibration split. Quality: share of right "
        "classes, or minus the mean error. By the exits taken: mean of the exits' calibrated "
        "times on the evaluated split."
    )
    return make_table(results, header, rows, f"{caption} {over_seeds(results)}")


def exits_table(results: Mapping, runs: Sequence[Mapping]) -> Table:
    """Each exit: its score if all rows stopped there, its time, and who stops there."""
    rows, first = [], runs[0]
    count = len(spread.seeds(results))
    for i, block in enumerate(first["exits"]):
        scores = [scale(results, run) * run["exit_scores"][i] for run in runs]
        times = [run["exit_milliseconds"][i] for run in runs]
        row = [str(block), mean_std(scores, of=count), mean_std(times, of=count)]
        for rule in first["rules"]:
            chosen = [at_equal_score(run, rule) for run in runs]
            shares = [100 * point["share"][i] for point in chosen if point is not None]
            row.append(mean_std(shares, of=count))
        rows.append(row)
    header = (
        "after block",
        column_title(results, first["metric"]),
        "ms until then",
        *(f"{title(rule)}: rows [%]" for rule in first["rules"]),
    )
    caption = (
        "Score and time if all rows stopped at that exit, embedding and heads included (time: of "
        "the calibration). Rows: at the settings of equal score."
    )
    return make_table(results, header, rows, f"{caption} {over_seeds(results)}")


def summary_tables(every: Sequence[Mapping]) -> list[Table]:
    """Of several data sets: scores and speeds at equal score, and the mean score over time.

    A rule without a setting at equal score counts as the whole model: its score, once as fast.
    """
    ran = [
        (results, runs)
        for results in every
        for stage in results.get("early_exit") or ()
        if (runs := measured(results, stage))
    ]
    if not ran:
        return []
    size = batch_sizes(ran[0][1])[-1]
    rules = list(dict.fromkeys(rule for _, runs in ran for rule in runs[0]["rules"]))
    rivals = [name for name in ran[0][1][0]["models"] if name != ran[0][1][0]["full"]]
    equal = (
        "The fastest setting within half a point of the whole model, chosen on the calibration "
        "split; without one the whole model stands for the rule."
    )

    def score(results: Mapping, run: Mapping, name: str) -> float | None:
        point = _point(run, name)
        return None if point is None else scale(results, run) * point["score"]

    def faster(results: Mapping, run: Mapping, name: str) -> float | None:
        point = _point(run, name)
        whole = _full([run])["milliseconds"][size]
        return None if point is None else whole / point["milliseconds"][size]

    def over_time(results: Mapping, run: Mapping, name: str) -> float | None:
        mean = None if name not in run["rules"] else area(
            run["rules"][name], size, _start(run, size), _full([run])["milliseconds"][size]
        )  # fmt: skip
        return None if mean is None else scale(results, run) * mean

    first = ran[0][1][0]["full"]
    columns = [first, *rules, *rivals]
    return [
        _of_tasks(ran, columns, score, f"Scores. {equal}"),
        _of_tasks(ran, columns, faster, f"Times as fast as the whole model, batch {size}. {equal}"),
        _of_tasks(
            ran, rules, over_time,
            f"Mean over time of the best score that no more time allows, batch {size}.",
        ),
    ]  # fmt: skip


def _of_tasks(
    ran: Sequence[tuple[Mapping, Sequence[Mapping]]],
    columns: Sequence[str],
    value: Any,
    caption: str,
) -> Table:
    """A row for each data set, and their mean, over the seeds that all of them have."""
    rows = []
    for results, runs in ran:
        cells = [
            mean_std(v for run in runs if (v := value(results, run, name)) is not None)
            for name in columns
        ]
        corpus = str(at(results, "data", "corpus"))
        rows.append([corpus, column_title(results, runs[0]["metric"]), *cells])
    count = min(len(runs) for _, runs in ran)
    means = []
    for name in columns:
        by_seed = [[value(results, runs[i], name) for results, runs in ran] for i in range(count)]
        whole = [each for each in by_seed if None not in each]
        means.append(mean_std(statistics.fmean(each) for each in whole))
    rows.append(["mean", "", *means])
    labels = [label(ran[0][0], name) if name in ran[0][1][0]["models"] else title(name)
              for name in columns]  # fmt: skip
    caption += f" Mean ± sample standard deviation over n = {count} seeds in the last row."
    return Table(("data", "metric", *labels), tuple(map(tuple, rows)), caption)


def _point(run: Mapping, name: str) -> Mapping | None:
    """A model's numbers, or a rule's at equal score; None for what this data set does not have."""
    if name in run["models"]:
        return run["models"][name]
    if name not in run["rules"]:
        return None
    return at_equal_score(run, name) or _full([run])


def introduction(results: Mapping, runs: Sequence[Mapping]) -> str:
    """What was run, on how many rows."""
    first = runs[0]
    corpus = at(results, "data", "corpus") or "the data"
    return (
        f"Scores are of {first['rows']:,} rows of {corpus}, {first['split']} split; milliseconds "
        f"are measured on {first['timed_rows']:,} of them on this machine, all settings in turns. "
        f"Optimal stopping is calibrated on {first['calibration_rows']:,} rows of the "
        f"{first['calibration_split']} split, which nothing was trained on; the settings of the "
        "tables are chosen there too. The whole model is the one without exits: "
        f"{number(scale(results, first) * _full([first])['score'])} at "
        + " and ".join(
            f"{number(ms)} ms a row (batch {size})"
            for size, ms in _full([first])["milliseconds"].items()
        )
        + f" in seed {spread.seeds(results)[0]}."
    )
