"""The plots of a report as PNG: curves over training steps, and paired differences by seed."""

import io
import math
import statistics
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxkd.report import spread, tables
from jaxkd.report.spread import at

# Okabe and Ito's palette: told apart by colour-blind readers too; dashes help a grey print
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))
UNIGRAM = "#555555"


def _text(text: str) -> str:
    # matplotlib reads $..$ as mathematics and leaves a label that begins with _ out of a legend
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _figure(results: Mapping, title: str, height: float = 4.4) -> Figure:
    figure = Figure(figsize=(9.5, height), layout="constrained")
    FigureCanvasAgg(figure)
    warning = f"\n{tables.not_its_numbers(results)}" if tables.embedded(results) else ""
    figure.suptitle(_text(title + warning), fontsize=11)
    return figure


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()


def _style(results: Mapping, model: str) -> dict:
    """A model has the same colour in every plot."""
    order = list(dict.fromkeys([*(results.get("models") or ()), *(results.get("curves") or ())]))
    place = order.index(model) if model in order else 0
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": DASHES[place % len(DASHES)]}


def _unigram_lines(results: Mapping, spec: Mapping) -> dict[str, float]:
    """Unigram cross-entropies a curve may be held against: the split's, and that of the positions
    that were evaluated (masking does not draw them evenly) where it is another."""
    split = spec.get("split", "train")
    lines = {}
    whole = at(results, "data", "unigram_nats", split)
    if whole is not None:
        lines[f"unigram, {split} split: {whole:.2f} nats"] = whole
    met = [
        value
        for model in spec["models"]
        for value in spread.values(results, model, split, "unigram").values()
    ]
    if met and (whole is None or abs(statistics.fmean(met) - whole) >= 0.005):
        value = statistics.fmean(met)
        lines[f"unigram, evaluated positions: {value:.2f} nats"] = value
    return lines


def _draw(axes: Axes, results: Mapping, spec: Mapping, start: float) -> tuple[float, float] | None:
    """Draws every arm from a step on; returns the lowest and the highest value drawn."""
    split, metric = spec.get("split", "train"), spec.get("metric", "loss")
    bounds: list[float] = []
    for model in spec["models"]:
        curves = list(spread.curve(results, model, split, metric).values())
        steps = [step for step in spread.shared_steps(curves) if step >= start]
        if not steps:
            continue
        drawn = [[curve[step] for curve in curves] for step in steps]
        style = _style(results, model)
        marker = "o" if len(steps) < 15 else ""
        name = _text(tables.label(results, model))
        means = [statistics.fmean(values) for values in drawn]
        axes.plot(steps, means, label=name, marker=marker, markersize=3, linewidth=1.4, **style)
        low, high = [min(values) for values in drawn], [max(values) for values in drawn]
        if len(curves) > 1:
            axes.fill_between(steps, low, high, color=style["color"], alpha=0.18, linewidth=0)
        bounds += filter(math.isfinite, [*low, *high])
    return (min(bounds), max(bounds)) if bounds else None


def curves(results: Mapping, spec: Mapping) -> bytes | None:
    """All arms of one plot over the steps: the mean over seeds as a line, the lowest to the highest
    seed as a band; on the right the second half of the steps, closer. None if nothing was logged.
    """
    split, metric = spec.get("split", "train"), spec.get("metric", "loss")
    what = tables.quantity(results, spec["models"], split, metric)
    figure = _figure(results, spec.get("title", what))
    whole, late = figure.subplots(1, 2, width_ratios=(3, 2))
    logged = [c for m in spec["models"] for c in spread.curve(results, m, split, metric).values()]
    if _draw(whole, results, spec, start=0.0) is None:
        return None
    bounds = _draw(late, results, spec, start=max(max(c) for c in logged) / 2)
    for dots, (name, value) in zip((":", "-"), _unigram_lines(results, spec).items(), strict=False):
        if spec.get("unigram"):
            for axes in (whole, late):
                axes.axhline(value, color=UNIGRAM, linestyle=dots, linewidth=1, label=name)
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


def differences(results: Mapping) -> bytes | None:
    """Each comparison's paired differences, one dot a seed, with their mean and its 95% interval;
    a panel for each quantity. None if no seed has a pair."""
    panels: dict[str, list[tuple[str, list[float]]]] = {}
    for each in at(results, "report", "comparisons") or ():
        pair = each["model"], each["baseline"]
        numbers = list(spread.paired(results, each).values())
        if numbers:
            what = tables.quantity(
                results, pair, each.get("split", "validation"), each.get("metric", "loss")
            )
            title = each.get("title", " - ".join(pair))
            panels.setdefault(what, []).append((title, numbers))
    if not panels:
        return None
    heights = [0.9 + 0.5 * len(rows) for rows in panels.values()]
    figure = _figure(results, "Paired differences, seed by seed", height=0.7 + sum(heights))
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axes, (what, rows) in zip(grid[:, 0], panels.items(), strict=True):
        for place, (_, numbers) in enumerate(rows):
            bounds = spread.interval(numbers)
            if bounds:
                axes.plot(bounds, (place, place), color=COLOURS[0], linewidth=2, alpha=0.5)
            axes.plot(numbers, [place] * len(numbers), "o", color=COLOURS[1], alpha=0.7)
            axes.plot(statistics.fmean(numbers), place, "|", color=COLOURS[0], markersize=16)
        axes.axvline(0, color=UNIGRAM, linewidth=1)
        axes.set_yticks(range(len(rows)), [_text(title) for title, _ in rows], fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(_text(f"difference in {what}"), fontsize=9)
        axes.grid(alpha=0.25, axis="x")
        axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)
