"""Early exit in a report: its tables, for one run and over several data sets."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd.report import early_exit, spread
from jaxkd.report.described import column_title, label
from jaxkd.report.markup import Table
from jaxkd.report.spread import ABSENT, at, mean_std, number
from jaxkd.report.tables import make_table, over_seeds


def settings_table(
    results: Mapping,
    runs: Sequence[Mapping],
    choose: Any,
    caption: str,
    sizes: Sequence[str] = (),
) -> Table:
    """Each rule at the setting that `choose` takes, beside the models without early exit.

    Args:
      sizes: of batches; empty: all that were timed.
    """
    sizes, first = sizes or early_exit.batch_sizes(runs), runs[0]
    rows = []
    for name, model in first["models"].items():
        each = [run["models"][name] for run in runs]
        blocks = model["layers"]
        rows.append(
            [label(results, name), ABSENT, *_cells(results, runs, each, str(blocks), sizes)]
        )
    for rule in first["rules"]:
        chosen = [(run, choose(run, rule)) for run in runs]
        known = [(run, point) for run, point in chosen if point is not None]
        if not known:
            kinds = 3 if early_exit.has_energy(runs) else 2
            rows.append([early_exit.title(rule), "none", *[ABSENT] * (2 + kinds * len(sizes))])
            continue
        named = ", ".join(dict.fromkeys(point["setting"] for _, point in known))
        depth = mean_std(
            sum(s * block for s, block in zip(point["share"], run["exits"], strict=True))
            for run, point in known
        )
        each = [point for _, point in known]
        measured_runs = [run for run, _ in known]
        rows.append(
            [early_exit.title(rule), named, *_cells(results, measured_runs, each, depth, sizes)]
        )
    header = (
        "rule or model",
        "setting",
        column_title(results, first["metric"]),
        "blocks a row",
        *(f"ms a row, batch {size}" for size in sizes),
        *(f"times as fast, batch {size}" for size in sizes),
        *(f"mJ a row, batch {size}" for size in sizes if early_exit.has_energy(runs)),
    )
    return make_table(results, header, rows, f"{caption} {over_seeds(results)}")


def _cells(
    results: Mapping,
    runs: Sequence[Mapping],
    points: Sequence[Mapping],
    blocks: str,
    sizes: Sequence[str],
) -> list[str]:
    count = len(spread.seeds(results))
    scores = [early_exit.scale(results, runs[0]) * point["score"] for point in points]
    times = [
        mean_std((point["milliseconds"][size] for point in points), of=count) for size in sizes
    ]
    faster = [
        mean_std(
            (
                early_exit.whole_model([run])["milliseconds"][size] / point["milliseconds"][size]
                for run, point in zip(runs, points, strict=True)
            ),
            of=count,
        )
        for size in sizes
    ]
    energy = [
        mean_std((point["millijoules"][size] for point in points), of=count)
        for size in sizes
        if early_exit.has_energy(runs)
    ]
    return [mean_std(scores, of=count), blocks, *times, *faster, *energy]


def areas_table(results: Mapping, runs: Sequence[Mapping]) -> Table:
    """Mean score over the range of time that all rules cover, for each rule."""
    sizes, rows = early_exit.batch_sizes(runs), []
    for rule in runs[0]["rules"]:
        row = [early_exit.title(rule)]
        for size in sizes:
            values = []
            for run in runs:
                whole = early_exit.whole_model([run])["milliseconds"][size]
                mean = early_exit.area(
                    run["rules"][rule], size, early_exit.shared_start(run, size), whole
                )
                values += [] if mean is None else [early_exit.scale(results, run) * mean]
            row.append(mean_std(values, of=len(spread.seeds(results))))
        rows.append(row)
    what = column_title(results, runs[0]["metric"])
    header = ("rule", *(f"mean {what} over time, batch {size}" for size in sizes))
    caption = (
        "The score of the best setting that takes no more time, averaged over time: from the "
        "slowest of the rules' fastest settings to the whole model. Which is best, the calibration "
        "split says."
    )
    return make_table(results, header, rows, f"{caption} {over_seeds(results)}")


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
        size = early_exit.batch_sizes(runs)[0]
        cells.append(mean_std(point["milliseconds"][size] for point in same))
        cells.append(mean_std(point["slowest_batch"][size] for point in same))
        rows.append([same[0]["setting"], *cells])
    header = (
        "price of the whole time", "quality, expected", "on the calibration rows", "evaluated",
        "ms, expected", "by the exits taken", f"measured, batch {early_exit.batch_sizes(runs)[0]}",
        "slowest batch of these",
    )  # fmt: skip
    caption = (
        "Expected: of the chain estimated on the calibration split; on its rows: of tables made "
        "of the others. Quality: what answers are worth to the metric, its first-order value; of "
        "numbers minus the mean error. By the exits taken: mean of the exits' calibrated times on "
        "the evaluated split."
    )
    return make_table(results, header, rows, f"{caption} {over_seeds(results)}")


def exits_table(results: Mapping, runs: Sequence[Mapping]) -> Table:
    """Each exit: its score if all rows stopped there, its time, and who stops there."""
    rows, first = [], runs[0]
    count = len(spread.seeds(results))
    for i, block in enumerate(first["exits"]):
        scores = [early_exit.scale(results, run) * run["exit_scores"][i] for run in runs]
        times = [run["exit_milliseconds"][i] for run in runs]
        row = [str(block), mean_std(scores, of=count), mean_std(times, of=count)]
        for rule in first["rules"]:
            chosen = [early_exit.at_equal_score(run, rule) for run in runs]
            shares = [100 * point["share"][i] for point in chosen if point is not None]
            row.append(mean_std(shares, of=count))
        rows.append(row)
    header = (
        "after block",
        column_title(results, first["metric"]),
        "ms until then",
        *(f"{early_exit.title(rule)}: rows [%]" for rule in first["rules"]),
    )
    caption = (
        "Score and time if all rows stopped at that exit, embedding and heads included (time: of "
        "the calibration). Rows: at the settings of equal score."
    )
    return make_table(results, header, rows, f"{caption} {over_seeds(results)}")


def introduction(results: Mapping, runs: Sequence[Mapping]) -> str:
    """What was run, on how many rows."""
    first = runs[0]
    corpus = at(results, "data", "corpus") or "the data"
    return (
        f"Scores are of {first['rows']:,} rows of {corpus}, {first['split']} split; milliseconds "
        f"are measured on {first['timed_rows']:,} of them on this machine, all settings in turns. "
        f"Optimal stopping is calibrated on {first['calibration_rows']:,} rows of the "
        f"{first['calibration_split']} split, on which this run trained nothing; the settings of "
        "the tables are chosen there too, each rule judged on rows it was not fitted to. The whole "
        "model is the one without exits: "
        f"{number(early_exit.scale(results, first) * early_exit.whole_model([first])['score'])} at "
        + " and ".join(
            f"{number(ms)} ms a row (batch {size})"
            for size, ms in early_exit.whole_model([first])["milliseconds"].items()
        )
        + f" in seed {spread.seeds(results)[0]}."
        + (
            " Energy is the processor package's, other programs included."
            if early_exit.has_energy(runs)
            else f" Energy was not measured: {first['no_energy']}."
        )
    )
