"""Optimizers of a search in a report: candidates until the best is had, and the regret so far."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd.report import plots
from jaxkd.report.markup import Plot, Section, Table
from jaxkd.report.spread import number
from jaxkd.report.tables import make_table

SHARES = (10, 4)  # regret after a tenth and a quarter of the candidates


def sections(results: Mapping, slug: Any) -> list[Section]:
    """One for each stage that compared optimizers.

    Args:
      slug: from a plot's title to its file's name.
    """
    made = []
    for stage, by_seed in (results.get("optimizers") or {}).items():
        for seed, run in by_seed.items():
            which = f"{stage}, seed {seed}" if len(by_seed) > 1 else stage
            title = "Regret over candidates"
            plot = Plot(slug(f"{which} {title}"), title, regret_plot(results, run))
            parts = (introduction(run), plot, needed_table(results, run))
            made.append(Section(f"Optimizers: {which}", parts))
    return made


def first_table(results: Mapping) -> Table:
    """How soon the best was had in the first comparison."""
    by_seed = next(iter(results["optimizers"].values()))
    return needed_table(results, next(iter(by_seed.values())))


def introduction(run: Mapping) -> str:
    """What was compared, and on what."""
    limit = ""
    if run["max_time"]:
        limit = f" that take at most {run['max_time']:g} of the teacher's time"
    seeds = len(next(iter(run["improvements"].values())))
    near = run["near_best"]
    return (
        f"The {run['candidates']} candidates of {run['search']}{limit} were all measured before, "
        f"so that the best reward is known: {number(run['best'])}. {near} "
        f"{'is' if near == 1 else 'are'} within {100 * run['within']:g}% of it. Each optimizer "
        f"was run {seeds} times with rewards that were looked up."
    )


def so_far(improvements: Sequence[Sequence[float]], candidates: int) -> np.ndarray:
    """The best reward after each candidate, [candidates].

    >>> so_far([[1, 0.5], [3, 0.8]], 4).tolist()
    [0.5, 0.5, 0.8, 0.8]
    """
    rewards = np.empty(candidates)
    for count, reward in improvements:
        rewards[int(count) - 1 :] = reward
    return rewards


def needed(improvements: Sequence[Sequence[float]], reward: float, candidates: int) -> int:
    """Candidates until one has at least that reward; all of them if none has."""
    return next((int(count) for count, value in improvements if value >= reward), candidates)


def needed_table(results: Mapping, run: Mapping) -> Table:
    """Candidates until one is as good as the best, and the mean regret on the way."""
    near = run["best"] - run["within"] * abs(run["best"])
    counts = {
        name: [needed(each, near, run["candidates"]) for each in runs]
        for name, runs in run["improvements"].items()
    }
    rows = []
    for name, each in counts.items():
        rewards = [so_far(one, run["candidates"]) for one in run["improvements"][name]]
        median = statistics.median(each)
        by_chance = statistics.median(counts["random"]) if "random" in counts else None
        rows.append([
            name, f"{median:g}", str(min(each)), str(max(each)),
            "–" if by_chance is None else f"{median / by_chance:.2f}",
            *(
                number(statistics.fmean(
                    run["best"] - one[max(1, run["candidates"] // share) - 1] for one in rewards
                ))
                for share in SHARES
            ),
        ])  # fmt: skip
    header = ("optimizer", "candidates to the best, median", "least", "most", "of random's median",
              *(f"mean regret after 1/{share}" for share in SHARES))  # fmt: skip
    caption = (
        f"Candidates until one is within {100 * run['within']:g}% of the best reward. Regret: the "
        "best reward less the best so far."
    )
    return make_table(results, header, rows, caption)


def regret_plot(results: Mapping, run: Mapping) -> bytes:
    """How far the best so far is from the best of all: medians, all seeds in the band."""
    seeds = len(next(iter(run["improvements"].values())))
    figure = plots.new_figure(
        results, f"Distance from the best of {run['candidates']} candidates, {seeds} seeds"
    )
    axes = figure.subplots()
    for i, (name, runs) in enumerate(run["improvements"].items()):
        colour = plots.COLOURS[i % len(plots.COLOURS)]
        regret = run["best"] - np.array([so_far(each, run["candidates"]) for each in runs])
        counts = np.arange(1, run["candidates"] + 1)
        axes.step(counts, np.median(regret, 0), where="post", color=colour,
                  linestyle=plots.DASHES[i % len(plots.DASHES)], label=name)  # fmt: skip
        axes.fill_between(
            counts, regret.min(0), regret.max(0), step="post", color=colour, alpha=0.12
        )
    axes.set_xlabel("candidates measured")
    axes.set_ylabel("regret: best reward - best so far")
    axes.set_xscale("log")
    return plots.finished(figure, axes)
