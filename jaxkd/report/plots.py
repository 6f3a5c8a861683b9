"""The plots of a report as PNG: curves over training steps, and paired differences by seed."""

import io
import math
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jaxkd.report import early_exit, spread
from jaxkd.report.described import (
    about,
    baseline_value,
    baselines,
    column_title,
    curve,
    embedded,
    label,
    paired,
    quantity,
    values,
)
from jaxkd.report.spread import at
from jaxkd.report.tables import embedded_warning

if TYPE_CHECKING:  # half a second to import, which a run need not wait for
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: distinct for colour-blind readers too; dashes help a grey print
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))
LINES = "#555555"  # of what no model of the plot reached: baselines, teachers


def _text(text: str) -> str:
    # matplotlib reads $..$ as mathematics and leaves a label that begins with _ out of a legend
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def new_figure(results: Mapping, title: str, height: float = 4.4) -> "Figure":
    """A figure with its title, and a warning where the text is no corpus."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, height), layout="constrained")
    FigureCanvasAgg(figure)
    warning = f"\n{embedded_warning(results)}" if embedded(results) else ""
    figure.suptitle(_text(title + warning), fontsize=11)
    return figure


def _png(figure: "Figure") -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()


def _style(results: Mapping, model: str) -> dict:
    """A model has the same colour in every plot."""
    order = list(dict.fromkeys([*(results.get("models") or ()), *(results.get("curves") or ())]))
    index = order.index(model) if model in order else 0
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def _lines(results: Mapping, spec: Mapping) -> dict[str, float]:
    """Values a curve is compared with, by their legend: constant answers and the teachers.

    The unigram cross-entropies, where the plot asks for them: the split's, and that of the
    positions that were evaluated (masking does not draw them evenly) where it is another. Of other
    metrics their baselines, always. Of students' curves on a split their teachers that are not in
    the plot: the last value logged on the same rows, else the finished model's.
    """
    split, metric = spec.get("split", "train"), spec.get("metric", "loss")
    lines: dict[str, float] = {}
    if spec.get("unigram"):
        whole = at(results, "data", "unigram_nats", split)
        if whole is not None:
            lines[f"unigram, {split} split: {whole:.2f} nats"] = whole
        unigram = baseline_value(results, "unigram", split)
        if unigram is not None and (whole is None or abs(unigram - whole) >= 0.005):
            lines[f"unigram, evaluated positions: {unigram:.2f} nats"] = unigram
    for name in baselines(results, metric):
        value = baseline_value(results, name, split)
        if name != "unigram" and value is not None:
            lines[f"{about(results, name)['title']}: {spread.number(value)}"] = value
    if split == "train" or about(results, metric).get("of_teacher"):
        return lines
    teachers = dict.fromkeys(at(results, "models", m, "teacher") for m in spec["models"])
    for teacher in teachers:
        if teacher is None or teacher in spec["models"]:
            continue
        last = [list(c.values())[-1] for c in curve(results, teacher, split, metric).values()]
        last = last or list(values(results, teacher, split, metric).values())
        if last and all(map(math.isfinite, last)):
            value = statistics.fmean(last)
            lines[f"{label(results, teacher)}: {spread.number(value)}"] = value
    return lines


def _draw(
    axes: "Axes", results: Mapping, spec: Mapping, start: float
) -> tuple[float, float] | None:
    """Draw every model from a step on; return the lowest and the highest value drawn."""
    split, metric = spec.get("split", "train"), spec.get("metric", "loss")
    bounds: list[float] = []
    for model in spec["models"]:
        curves = list(curve(results, model, split, metric).values())
        steps = [step for step in spread.shared_steps(curves) if step >= start]
        if not steps:
            continue
        drawn = [[each[step] for each in curves] for step in steps]
        style = _style(results, model)
        marker = "o" if len(steps) < 15 else ""
        name = _text(label(results, model))
        means = [statistics.fmean(values) for values in drawn]
        axes.plot(steps, means, label=name, marker=marker, markersize=3, linewidth=1.4, **style)
        low, high = [min(values) for values in drawn], [max(values) for values in drawn]
        if len(curves) > 1:
            axes.fill_between(steps, low, high, color=style["color"], alpha=0.18, linewidth=0)
        bounds += filter(math.isfinite, [*low, *high])
    return (min(bounds), max(bounds)) if bounds else None


def curves(results: Mapping, spec: Mapping) -> bytes | None:
    """All models of one plot over the steps: the mean over seeds as a line, the lowest to the
    highest seed as a band; on the right the second half of the steps, closer. None if nothing was
    logged.
    """
    split, metric = spec.get("split", "train"), spec.get("metric", "loss")
    what = quantity(results, spec["models"], split, metric)
    figure = new_figure(results, spec.get("title", what))
    whole, late = figure.subplots(1, 2, width_ratios=(3, 2))
    logged = [c for m in spec["models"] for c in curve(results, m, split, metric).values()]
    if _draw(whole, results, spec, start=0.0) is None:
        return None
    bounds = _draw(late, results, spec, start=max(max(c) for c in logged) / 2)
    for i, (name, value) in enumerate(_lines(results, spec).items()):
        for axes in (whole, late):
            style = DASHES[(i + 1) % len(DASHES)] if i else ":"
            axes.axhline(value, color=LINES, linestyle=style, linewidth=1, label=_text(name))
    if bounds:  # the second half sets its own scale, whatever lines cross it
        margin = 0.08 * (bounds[1] - bounds[0]) or 0.01
        late.set_ylim(bounds[0] - margin, bounds[1] + margin)
    band = "; band: lowest to highest seed" if len(spread.seeds(results)) > 1 else ""
    for axes, part in ((whole, f"all steps{band}"), (late, "second half, closer")):
        axes.set_title(part, fontsize=9)
        axes.set_xlabel("optimiser steps")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    whole.set_ylabel(_text(what))
    handles, labels = whole.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return _png(figure)


def note(results: Mapping, spec: Mapping) -> str:
    """What stands under a plot of curves."""
    if len(spread.seeds(results)) < 2:
        return "One line a model: there is one seed."
    return "Line: mean over seeds. Band: from the lowest to the highest seed."


def differences(results: Mapping) -> bytes | None:
    """Each comparison's paired differences, one dot a seed, with their mean and its 95% interval;
    a panel for each quantity. None if no seed has a pair, or where there is one seed only."""
    if len(spread.seeds(results)) < 2:
        return None
    panels: dict[str, list[tuple[str, list[float]]]] = {}
    for each in at(results, "report", "comparisons") or ():
        pair = each["model"], each["baseline"]
        numbers = list(paired(results, each).values())
        if numbers:
            what = quantity(
                results, pair, each.get("split", "validation"), each.get("metric", "loss")
            )
            title = each.get("title", " - ".join(pair))
            panels.setdefault(what, []).append((title, numbers))
    if not panels:
        return None
    heights = [0.9 + 0.5 * len(rows) for rows in panels.values()]
    figure = new_figure(results, "Paired differences, seed by seed", height=0.7 + sum(heights))
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axes, (what, rows) in zip(grid[:, 0], panels.items(), strict=True):
        for i, (_, numbers) in enumerate(rows):
            bounds = spread.interval(numbers)
            if bounds:
                axes.plot(bounds, (i, i), color=COLOURS[0], linewidth=2, alpha=0.5)
            axes.plot(numbers, [i] * len(numbers), "o", color=COLOURS[1], alpha=0.7)
            axes.plot(statistics.fmean(numbers), i, "|", color=COLOURS[0], markersize=16)
        axes.axvline(0, color=LINES, linewidth=1)
        axes.set_yticks(range(len(rows)), [_text(title) for title, _ in rows], fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(_text(f"difference in {what}"), fontsize=9)
        axes.grid(alpha=0.25, axis="x")
        axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def score_over_time(results: Mapping, stage: str) -> bytes | None:
    """Score over milliseconds of every early-exit rule, a panel for each batch size, with the
    models without early exit. None if nothing was measured."""
    runs = early_exit.measured(results, stage)
    if not runs:
        return None
    sizes = early_exit.batch_sizes(runs)
    figure = new_figure(results, "Score over wall-clock time", height=4.8)
    panels = figure.subplots(1, len(sizes), squeeze=False, sharey=True)[0]
    what = column_title(results, runs[0]["metric"])
    for axes, size in zip(panels, sizes, strict=True):
        for i, rule in enumerate(runs[0]["rules"]):
            points = early_exit.curve(results, runs, rule, size)
            axes.plot(
                *zip(*points, strict=True),
                label=_text(early_exit.title(rule)),
                color=COLOURS[i % len(COLOURS)],
                linestyle=DASHES[i % len(DASHES)],
                marker="o",
                markersize=3.5,
                linewidth=1.3,
            )
        for name, marker in zip(runs[0]["models"], "*sDv^<>", strict=False):
            models = [run["models"][name] for run in runs]
            axes.plot(
                statistics.fmean(model["milliseconds"][size] for model in models),
                early_exit.scale(results, runs[0])
                * statistics.fmean(model["score"] for model in models),
                marker,
                label=_text(label(results, name)),
                color="#000000" if marker == "*" else LINES,
                markersize=11 if marker == "*" else 7,
            )
        axes.set_xlim(left=0)
        axes.set_title(f"batch {size}", fontsize=9)
        axes.set_xlabel("milliseconds a row")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(_text(what))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return _png(figure)


def finished(figure: "Figure", axes: "Axes") -> bytes:
    """The PNG of a figure of one panel with a legend."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return _png(figure)
