"""A search in a report: what was found, what it cost, and every candidate's loss over its time."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd.report import plots, spread
from jaxkd.report.markup import Plot, Section, Table
from jaxkd.report.spread import number
from jaxkd.report.tables import make_table

SIZES = ("layers", "width", "heads", "feed_forward", "activation")


def sections(results: Mapping, slug: Any) -> list[Section]:
    """One for each stage that searched.

    Args:
      slug: from a plot's title to its file's name.
    """
    made = []
    for stage, by_seed in (results.get("search") or {}).items():
        runs = _in_order(results, by_seed)
        first = runs[0]
        parts: list[Any] = [introduction(first), found_table(results, runs)]
        for title, png in (
            ("Loss over time of all candidates", front_plot(results, first)),
            ("Best reward so far", reward_plot(results, runs)),
        ):
            parts.append(Plot(slug(f"{stage}-{title}"), title, png))
        parts += [cost_table(results, runs), candidates_table(results, first)]
        made.append(Section(f"Search: {stage}", tuple(parts)))
    return made


def _in_order(results: Mapping, by_seed: Mapping) -> list[Mapping]:
    return [by_seed[seed] for seed in spread.seeds(results) if seed in by_seed]


def first_table(results: Mapping) -> Table:
    """What the first search found."""
    by_seed = next(iter(results["search"].values()))
    return found_table(results, _in_order(results, by_seed))


def introduction(run: Mapping) -> str:
    """What was searched, and by what reward."""
    names = ", ".join(f"{name} {_listed(values)}" for name, values in run["space"].items())
    latency = run["latency"]
    of = {"jit": "the compiled forward pass", "onnx": "the ONNX file under onnxruntime",
          "bundle": "the bundle's runner"}[latency["of"]]  # fmt: skip
    how = "predicted from timed shapes" if run["table_errors"] is not None else "measured"
    start = "cut from the teacher" if run["start"] == "teacher" else "with random weights"
    sign = "faster" if run["alpha"] < 0 else "slower" if run["alpha"] > 0 else "no"
    return (
        f"Candidates, {start}: {names}. Each learned for at most {run['steps']} steps on "
        f"{run['rows']:,} rows. Reward: (1 - loss) x (time / ({run['beta']:g} x teacher's time)) ^ "
        f"{run['alpha']:g}, in which {sign} candidates are worth more. Time: {of}, "
        f"{latency['batch']} x {latency['length']} tokens, {how}. Loss: of hidden states; 1 is "
        "that of the best constant answer."
    )


def _listed(values: Sequence[Any]) -> str:
    return "/".join(map(str, values))


def best_of(run: Mapping) -> Mapping[str, Any]:
    return next(each for each in run["candidates"] if each["key"] == run["best"])


def share_of_time(candidate: Mapping) -> float:
    """Its time as a share of its teacher's."""
    return candidate["milliseconds"] / candidate["teacher_milliseconds"]


def found_table(results: Mapping, runs: Sequence[Mapping]) -> Table:
    """The teacher's shape, the best candidate's of each seed, and the best one by hand."""
    rows = []
    names = _names(runs[0])
    teacher = runs[0]["teacher"]
    rows.append(["teacher", *(str(teacher[name]) for name in names), "1", "–", "–", "–"])
    for seed, run in zip(spread.seeds(results), runs, strict=False):
        rows.append(_shape(f"best, seed {seed}", names, best_of(run)))
        hand = [
            each
            for each in run["candidates"]
            if each["key"] in run["by_hand"] and each["state"] == "complete"
        ]
        if hand:
            best = max(hand, key=lambda each: each["reward"])
            rows.append(_shape(f"best by hand, seed {seed}", names, best))
    header = ("what", *(name.replace("_", " ") for name in names), "time / teacher's",
              "parameters", "loss", "reward")  # fmt: skip
    caption = "By hand: the teacher's shape with fewer blocks. After the short distillation."
    return make_table(results, header, rows, caption)


def _names(run: Mapping) -> list[str]:
    """The dimensions that are columns; the blocks' own feed-forwards share one."""
    return [name for name in SIZES if any(each.startswith(name) for each in run["space"])]


def _size(candidate: Mapping, name: str) -> str:
    if name in candidate:
        return str(candidate[name])
    own = [str(value) for each, value in candidate.items() if each.startswith(name)]
    return "/".join(own[: candidate.get("layers", len(own))])


def _shape(what: str, names: Sequence[str], each: Mapping) -> list[str]:
    return [
        what,
        *(_size(each["candidate"], name) for name in names),
        number(share_of_time(each)),
        f"{each['parameters']:,}",
        number(each["loss"]),
        number(each["reward"]),
    ]


def cost_table(results: Mapping, runs: Sequence[Mapping]) -> Table:
    """What a search was paid for, seed by seed."""
    rows = []
    for seed, run in zip(spread.seeds(results), runs, strict=False):
        states = [each["state"] for each in run["candidates"]]
        steps = sum(each.get("steps", 0) for each in run["candidates"])
        errors = run["table_errors"]
        within = "–"
        if errors:
            share = sum(abs(error) <= 0.1 for error in errors) / len(errors)
            within = f"{100 * share:.0f}% of {len(errors)}"
        rows.append([
            seed, run["optimizer"], f"{run['combinations']:,}", str(len(states)),
            str(states.count("stopped")), str(states.count("failed")), f"{steps:,}",
            number(sum(each.get("seconds", 0.0) for each in run["candidates"])),
            str(sum(each.get("compilations", 0) for each in run["candidates"])), within,
        ])  # fmt: skip
    header = ("seed", "optimizer", "combinations", "candidates", "stopped early", "failed",
              "steps", "seconds", "compilations", "shapes predicted within 10%")  # fmt: skip
    return make_table(
        results, header, rows,
        "Seconds and compilations of all candidates, without timing shapes for a table and running "
        "the teacher. A step program, a loss "
        "program and what is timed are compiled for each shape.",
    )  # fmt: skip


def candidates_table(results: Mapping, run: Mapping) -> Table:
    """The candidates of the front, fastest first, and those that failed."""
    names = _names(run)
    by_key = {each["key"]: each for each in run["candidates"]}
    rows = [
        _shape("best" if key == run["best"] else "front", names, by_key[key])
        for key in run["front"]
    ]
    failed = [each for each in run["candidates"] if each["state"] == "failed"]
    caption = "Candidates that no other beats in loss and time at once."
    if failed:
        reasons = "; ".join(f"{each['key']}: {each['reason']}" for each in failed)
        caption += f" Failed: {reasons}."
    header = ("what", *(name.replace("_", " ") for name in names), "time / teacher's",
              "parameters", "loss", "reward")  # fmt: skip
    return make_table(results, header, rows, caption)


def front_plot(results: Mapping, run: Mapping) -> bytes:
    """Loss over time of the candidates that were not stopped; the front as a line."""
    figure = plots.new_figure(results, "Loss over time of all candidates")
    axes = figure.subplots()
    complete = [each for each in run["candidates"] if each["state"] == "complete"]
    groups = {
        "candidates": [e for e in complete if e["key"] not in run["by_hand"]],
        "by hand": [e for e in complete if e["key"] in run["by_hand"]],
        "best": [best_of(run)],
    }
    for (title, group), colour, marker in zip(
        groups.items(), plots.COLOURS, ("o", "s", "*"), strict=False
    ):
        points = [(share_of_time(each), each["loss"]) for each in group]
        if points:
            axes.scatter(*zip(*points, strict=True), label=title, color=colour, marker=marker,
                         s=110 if marker == "*" else 22, zorder=3)  # fmt: skip
    by_key = {each["key"]: each for each in complete}
    front = [(share_of_time(by_key[k]), by_key[k]["loss"]) for k in run["front"] if k in by_key]
    axes.step(*zip(*front, strict=True), where="post", color=plots.LINES, linewidth=1.0,
              label="front")  # fmt: skip
    axes.set_xlabel("time / teacher's time")
    axes.set_ylabel("loss after the short distillation")
    return plots.finished(figure, axes)


def reward_plot(results: Mapping, runs: Sequence[Mapping]) -> bytes:
    """The best reward after each candidate, a line for each seed."""
    figure = plots.new_figure(results, "Best reward so far", height=3.6)
    axes = figure.subplots()
    for i, (seed, run) in enumerate(zip(spread.seeds(results), runs, strict=False)):
        best, line = -math.inf, []
        for each in run["candidates"]:
            best = max(best, each.get("reward", -math.inf) if each["state"] == "complete" else best)
            line.append(best)
        points_so_far = [(n, value) for n, value in enumerate(line, 1) if math.isfinite(value)]
        axes.plot(*zip(*points_so_far, strict=True), label=f"{run['optimizer']}, seed {seed}",
                  color=plots.COLOURS[i % len(plots.COLOURS)], drawstyle="steps-post")  # fmt: skip
    axes.set_xlabel("candidates")
    axes.set_ylabel("reward")
    return plots.finished(figure, axes)
