"""Bundles in a report: memory of the runner, and score over its time where it exits early."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxkd.report import plots, spread
from jaxkd.report.described import about, factor
from jaxkd.report.markup import Table
from jaxkd.report.spread import mean_std
from jaxkd.report.tables import make_table


def measured(results: Mapping, stage: str) -> dict[str, list[Mapping[str, Any]]]:
    """Each bundle's measures in the order of the seeds, of those that have some."""
    by_seed = (results.get("exports") or {}).get(stage) or {}
    runs = [by_seed[seed] for seed in spread.seeds(results) if seed in by_seed]
    names = [name for name, one in (runs[0] if runs else {}).items() if "memory" in one]
    return {name: [run[name] for run in runs if "memory" in run.get(name, {})] for name in names}


def memory_table(results: Mapping, bundles: Mapping[str, Sequence[Mapping]]) -> Table:
    """Memory of a process that answers one text, all weights in memory and one layer at a time."""
    of, rows = len(spread.seeds(results)), []
    for name, runs in bundles.items():
        memories = [run["memory"] for run in runs]

        def cell(*path: str, memories: Sequence[Mapping] = memories) -> str:
            return mean_std((spread.at(one, *path) for one in memories), of=of)

        for title, memory, milliseconds in (
            ("all weights in memory", "memory", "milliseconds_resident"),
            ("one layer at a time", "memory_least", "milliseconds_least"),
        ):
            rows.append([
                name, title, cell(memory, "peak"), cell(memory, "anonymous"),
                cell(memory, "file_backed"), cell(milliseconds),
            ])  # fmt: skip
    header = ("bundle", "weights", "peak MB", "anonymous MB", "file-backed MB", "ms")
    caption = (
        "One text, in the bundle's own process; Python, numpy and onnxruntime are part of it. "
        "The system takes file-backed memory back when it needs it."
    )
    return make_table(results, header, rows, caption)


def memory_by_layer(results: Mapping, bundles: Mapping[str, Sequence[Mapping]]) -> bytes | None:
    """Anonymous and file-backed memory after each layer of one text, a layer in memory at a time;
    of the first seed. None where the system did not say."""
    lines = {
        name: [point for point in runs[0]["memory"]["by_layer"] if None not in point]
        for name, runs in bundles.items()
    }
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return None
    figure = plots.new_figure(results, "Memory after each layer, one layer at a time")
    axes = figure.subplots()
    for i, (name, points) in enumerate(lines.items()):
        blocks, *kinds = zip(*points, strict=True)
        for kind, values, dash in zip(
            ("anonymous", "file-backed"), kinds, ("-", "--"), strict=True
        ):
            axes.plot(
                [block + 1 for block in blocks], values, dash, marker="o", markersize=3.5,
                color=plots.COLOURS[i % len(plots.COLOURS)], label=f"{name}, {kind}",
            )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel("layers that ran")
    axes.set_ylabel("megabytes of the process")
    return plots.finished(figure, axes)


def score_over_time(results: Mapping, bundles: Mapping[str, Sequence[Mapping]]) -> bytes | None:
    """Score over milliseconds of optimal stopping on each bundle; None without early exits."""
    exits = {name: runs for name, runs in bundles.items() if all("exits" in run for run in runs)}
    if not exits:
        return None
    metric = about(results, next(iter(exits.values()))[0]["metric"])
    figure = plots.new_figure(results, "Score over time on the bundle, one text at a time")
    axes = figure.subplots()
    for i, (name, runs) in enumerate(exits.items()):
        points = sorted(_means(runs, factor(metric["unit"])))
        axes.plot(
            *zip(*points, strict=True), marker="o", markersize=4, label=name,
            color=plots.COLOURS[i % len(plots.COLOURS)],
            linestyle=plots.DASHES[i % len(plots.DASHES)],
        )  # fmt: skip
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds a text")
    axes.set_ylabel(" ".join(part for part in (metric["title"], metric["unit"]) if part))
    return plots.finished(figure, axes)


def _means(runs: Sequence[Mapping], scale: float) -> Iterable[tuple[float, float]]:
    for same in zip(*(run["exits"] for run in runs), strict=True):
        yield (
            statistics.fmean(point["milliseconds"] for point in same),
            scale * statistics.fmean(point["score"] for point in same),
        )
