"""Early exit over several data sets: tables of all tasks, and who wins at a student's speed."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd.report import early_exit, plots, spread
from jaxkd.report.described import about, label
from jaxkd.report.markup import Plot, Table
from jaxkd.report.spread import at, mean_std

SHARES = [share / 100 for share in range(20, 104, 2)]  # of the whole model's time


Ran = Sequence[tuple[Mapping, Sequence[Mapping]]]  # results, and what each seed measured


def summary(every: Sequence[Mapping]) -> list[tuple[str, "Table | Plot"]]:
    """Of several data sets, with headings: scores and speeds at equal score, score over time.

    A rule without a setting at equal score counts as the whole model: its score, once as fast.
    """
    ran = [
        (results, runs)
        for results in every
        for stage in results.get("early_exit") or ()
        if (runs := early_exit.measured(results, stage))
    ]
    if not ran:
        return []
    scores, speeds, areas = _tables(ran)
    size = early_exit.batch_sizes(ran[0][1])[-1]
    parts: list[tuple[str, Table | Plot]] = [
        ("Early exit: scores", scores),
        ("Early exit: times as fast", speeds),
        ("Early exit: mean score over time", areas),
    ]
    png = _curves(ran, size)
    if png is not None:
        title = "Early exit: score over time, mean of data sets"
        parts.append((title, Plot("early-exit-score-over-time.png", title, png)))
    if all(early_exit.OURS in runs[0]["rules"] for _, runs in ran):
        parts.append(("Early exit or a shorter student", _at_students_speed(ran, size)))
    return parts


def _tables(ran: Ran) -> list[Table]:
    size = early_exit.batch_sizes(ran[0][1])[-1]
    rules = list(dict.fromkeys(rule for _, runs in ran for rule in runs[0]["rules"]))
    rivals = [name for name in ran[0][1][0]["models"] if name != ran[0][1][0]["full"]]
    equal = (
        "The fastest setting within half a point of the whole model, chosen on the calibration "
        "split; without one the whole model stands for the rule."
    )

    def score(run: Mapping, name: str) -> float | None:
        point = early_exit.at_equal_score_or_whole(run, name)
        return None if point is None else 100 * point["score"]

    def faster(run: Mapping, name: str) -> float | None:
        point = early_exit.at_equal_score_or_whole(run, name)
        whole = early_exit.whole_model([run])["milliseconds"][size]
        return None if point is None else whole / point["milliseconds"][size]

    def over_time(run: Mapping, name: str) -> float | None:
        if name not in run["rules"]:
            return None
        whole = early_exit.whole_model([run])["milliseconds"][size]
        mean = early_exit.area(run["rules"][name], size, early_exit.shared_start(run, size), whole)
        return None if mean is None else 100 * mean

    first = ran[0][1][0]["full"]
    columns = [first, *rules, *rivals]
    return [
        _of_tasks(ran, columns, score, f"Scores in points: times 100. {equal}"),
        _of_tasks(ran, columns, faster, f"Times as fast as the whole model, batch {size}. {equal}"),
        _of_tasks(
            ran,
            rules,
            over_time,
            "Mean over time, in points, of the score of the best setting that takes no more time, "
            f"batch {size}.",
        ),
    ]


def _of_tasks(
    ran: Ran,
    columns: Sequence[str],
    value: Any,
    caption: str,
) -> Table:
    """A row for each data set, then means over them, over the seeds that all of them have."""
    rows, by_task = [], []
    for results, runs in ran:
        by_seed = dict(zip(_seeds_of(results, runs), runs, strict=True))
        values = {
            name: {seed: value(run, name) for seed, run in by_seed.items()} for name in columns
        }
        by_task.append(values)
        cells = [mean_std(v for v in values[n].values() if v is not None) for n in columns]
        corpus = str(at(results, "data", "corpus"))
        rows.append([corpus, about(results, runs[0]["metric"])["title"], *cells])
    shared = set.intersection(*(set(values[columns[0]]) for values in by_task))
    # A rule that some data set does not have (entropy of a regression) has no mean over all; the
    # last row compares rules over the data sets that have them all.
    complete = [
        values
        for values in by_task
        if all(values[name][seed] is not None for name in columns for seed in shared)
    ]
    for which, tasks in (("mean of all", by_task), (f"mean of {len(complete)}", complete)):
        if which != "mean of all" and len(complete) in (0, len(by_task)):
            continue
        means = []
        for name in columns:
            each = [[values[name][seed] for values in tasks] for seed in sorted(shared)]
            means.append(mean_std(statistics.fmean(v) for v in each if None not in v))
        rows.append([which, "", *means])
    labels = [
        label(ran[0][0], name) if name in ran[0][1][0]["models"] else early_exit.title(name)
        for name in columns
    ]
    caption += (
        f" Means are over data sets, ± over n = {len(shared)} seeds that all have. The second is "
        "over those for which every rule has a value."
    )
    return Table(("data", "metric", *labels), tuple(map(tuple, rows)), caption)


def _seeds_of(results: Mapping, runs: Sequence[Mapping]) -> list[str]:
    return [
        seed
        for seed in spread.seeds(results)
        if any(
            at(results, "early_exit", stage, seed) in runs
            for stage in results.get("early_exit") or ()
        )
    ]


def _at_students_speed(ran: Ran, size: str) -> Table:
    """Of each data set and student: its score, that of optimal stopping as fast, and who wins."""
    first = ran[0][1][0]
    rivals = [name for name in first["models"] if name != first["full"]]
    rows = []
    for results, runs in ran:
        for rival in rivals:
            scores = [100 * run["models"][rival]["score"] for run in runs]
            points = [early_exit.at_speed_of(run, early_exit.OURS, rival, size) for run in runs]
            cells = [mean_std(scores), spread.ABSENT, spread.ABSENT, "the student"]
            if all(points):
                ours = [100 * point["score"] for point in points]
                differences = [a - b for a, b in zip(ours, scores, strict=True)]
                ahead = statistics.fmean(differences)
                wins = "early exit" if ahead > 0 else "the student" if ahead < 0 else "neither"
                cells[1:] = [mean_std(ours), mean_std(differences), wins]
            name = label(results, rival)
            metric = about(results, runs[0]["metric"])["title"]
            rows.append((str(at(results, "data", "corpus")), metric, name, *cells))
    header = ("data", "metric", "student", "its score", "optimal stopping", "difference", "ahead")
    caption = (
        f"Points: scores times 100, batch {size}. Of the settings of optimal stopping at most "
        f"{100 * (early_exit.SLOWER - 1):.0f}% slower than the student the best on the calibration "
        "split. A difference within the spread of seeds, or of one seed, is no proof."
    )
    return Table(header, tuple(rows), caption)


def _curves(ran: Ran, size: str) -> bytes | None:
    """The best score so far over the share of time, a line for each rule; mean of the data sets
    that have all rules, over seeds. Data sets where a rule is too slow have the line begin later.
    """
    rules = list(dict.fromkeys(rule for _, runs in ran for rule in runs[0]["rules"]))
    complete = [runs for _, runs in ran if all(rule in runs[0]["rules"] for rule in rules)]
    if not complete:
        return None
    title = f"Score over time, mean of {len(complete)} data sets, batch {size}"
    figure = plots.new_figure(ran[0][0], title)
    axes = figure.subplots()
    for i, rule in enumerate(rules):
        line = []
        for share in SHARES:
            each = [
                early_exit.best_so_far(run, rule, size, share) for runs in complete for run in runs
            ]
            if None not in each:
                line.append((share, 100 * statistics.fmean(each)))
        if line:
            axes.plot(
                *zip(*line, strict=True), drawstyle="steps-post", label=early_exit.title(rule),
                color=plots.COLOURS[i % len(plots.COLOURS)],
                linestyle=plots.DASHES[i % len(plots.DASHES)],
            )  # fmt: skip
    whole = [100 * early_exit.whole_model([run])["score"] for runs in complete for run in runs]
    axes.axhline(statistics.fmean(whole), color=plots.LINES, linewidth=0.9, label="whole model")
    axes.set_xlabel("time / time of the whole model without exits")
    axes.set_ylabel("score in points")
    return plots.finished(figure, axes)
