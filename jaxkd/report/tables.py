"""The tables of a report."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from jaxkd.core.names import did_you_mean
from jaxkd.report import spread
from jaxkd.report.described import (
    about,
    baseline_value,
    baselines,
    column_title,
    curve,
    embedded,
    expected_corpus,
    factor,
    is_expected,
    label,
    paired,
    quantity,
    steps_in_words,
    students,
    term,
    unit_of,
    values,
    with_unit,
)
from jaxkd.report.markup import Table
from jaxkd.report.spread import ABSENT, at, mean_std, number


def embedded_warning(results: Mapping) -> str:
    """What every table and plot of a run on the embedded text says."""
    expected = expected_corpus(results)
    no_corpus = f" These are not {expected} numbers." if expected else ""
    return f"Text: embedded, no corpus.{no_corpus}"


def unlike_teachers(results: Mapping, models: Iterable[str], split: str, metric: str) -> str:
    """A warning where a number measures distance to a teacher and the teachers differ."""
    to_teacher = about(results, metric).get("of_teacher") or split == "train"
    teachers = {at(results, "models", model, "teacher") for model in models} - {None}
    if len(teachers) < 2 or not to_teacher:
        return ""
    names = ", ".join(f"“{label(results, teacher)}”" for teacher in sorted(teachers))
    return f" Models with different teachers ({names}) are each measured against their own."


def over_seeds(results: Mapping) -> str:
    """How a caption says what ± is."""
    seeds = spread.seeds(results)
    if len(seeds) < 2:
        return f"One seed ({seeds[0]})." if seeds else "One seed."
    listed = ", ".join(seeds)
    return f"Mean ± sample standard deviation over n = {len(seeds)} seeds ({listed})."


def unlike_steps(results: Mapping, models: Iterable[str]) -> str:
    """Says so where the trained models were not trained equally long."""
    trained = [step for model in models for step in spread.trained_steps(results, model)]
    if len(set(trained)) < 2:
        return ""
    return (
        f" Models were trained for unlike numbers of steps, {min(trained):,} to {max(trained):,}."
    )


def make_table(
    results: Mapping, header: Sequence[str], rows: Iterable[Sequence[str]], caption: str
) -> Table:
    # Every table is made here, so that none can leave out that its text is no corpus.
    caption = f"{embedded_warning(results)} {caption}" if embedded(results) else caption
    return Table(tuple(header), tuple(tuple(row) for row in rows), caption)


def _cell(results: Mapping, model: str, split: str, metric: str) -> str:
    numbers = values(results, model, split, metric).values()
    return mean_std(numbers, of=len(spread.seeds(results)))


def first_split(results: Mapping) -> str:
    """The split whose results stand first, and in results/README.md."""
    return at(results, "report", "split") or "validation"


def measured(results: Mapping, split: str, compact: bool) -> list[str]:
    """The metrics that have a column: those of the results file, in its order, that have values."""
    present: dict[str, None] = {}
    for model in (results.get("models") or {}).values():
        for seed in ((model or {}).get("seeds") or {}).values():
            present.update(dict.fromkeys((seed or {}).get(split) or ()))
    described = list(results.get("metrics") or {})
    ordered = [m for m in described if m in present] + [m for m in present if m not in described]
    allowed = {"all"} if compact else {"all", "report"}
    return [m for m in ordered if about(results, m)["columns"] in allowed]


def outcome(results: Mapping, split: str = "", compact: bool = False) -> Table:
    """Every model with its size and what it reached; `compact`, with fewer columns, is that of
    results/README.md."""
    split = split or first_split(results)
    models = results.get("models") or {}
    columns: dict[str, Callable[[str, Mapping], str]] = {
        "model": lambda name, model: label(results, name)
    }
    sizes = {"layers": "layers", "width": "width", "parameters": "parameters", "MB": "megabytes"}
    for title, key in sizes.items():
        if compact and title in ("width", "MB"):
            continue
        if any((model or {}).get(key) is not None for model in models.values()):
            columns[title] = lambda name, model, key=key: plain(model.get(key))
    if not compact and any(spread.trained_steps(results, name) for name in models):
        columns["steps"] = lambda name, model: steps_in_words(results, name) or ABSENT
    metrics = measured(results, split, compact)
    for i, metric in enumerate(metrics):
        title = column_title(results, metric)
        columns[f"{split} {title}" if i == 0 else title] = lambda name, model, metric=metric: _cell(
            results, name, split, metric
        )
    rows = [
        [cell(name, model or {}) for cell in columns.values()] for name, model in models.items()
    ]
    rows += _baseline_rows(results, split, metrics, len(columns) - len(metrics))
    corpus = at(results, "data", "corpus")
    on = f"{split} split of {corpus}" if corpus else f"{split} split"
    caption = f"Evaluation on the {on}. {over_seeds(results)}{unlike_steps(results, models)}"
    if "under_unigram" in metrics:
        caption += " Under the unigram line: what the loss is below the cross-entropy of a unigram "
        caption += "model at the same positions (negative: above it)."
    return make_table(results, tuple(columns), rows, caption)


def _baseline_rows(
    results: Mapping, split: str, metrics: Sequence[str], before: int
) -> list[list[str]]:
    """A row for each kind of constant answer; none for a line that has a column of its own."""
    rows: dict[str, dict[str, str]] = {}
    for metric in metrics:
        for name in baselines(results, metric):
            value = baseline_value(results, name, split)
            if value is not None and f"under_{name}" not in metrics:
                rows.setdefault(about(results, name)["title"], {})[metric] = number(value)
    return [
        [title, *[ABSENT] * (before - 1), *(cells.get(metric, ABSENT) for metric in metrics)]
        for title, cells in rows.items()
    ]


def plain(value: object) -> str:
    """A cell of a value that is no measurement."""
    if value is None:
        return ABSENT
    if isinstance(value, list):  # the least and the most over the seeds
        return " to ".join(map(plain, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def comparisons(results: Mapping) -> Table:
    """Paired differences, seed by seed, with Student's interval of their mean."""
    one = len(spread.seeds(results)) < 2
    rows, warnings = [], []
    for each in at(results, "report", "comparisons") or ():
        split, metric = each.get("split", "validation"), each.get("metric", "loss")
        pair = each["model"], each["baseline"]
        differences = paired(results, each)
        numbers = list(differences.values())
        row = [
            each.get("title", " - ".join(pair)),
            " minus ".join(label(results, model) for model in pair) + _steps_mark(results, pair),
            quantity(results, pair, split, metric),
        ]
        if one:
            row.append(number(numbers[0], signed=True) if numbers else ABSENT)
        else:
            bounds = spread.interval(numbers)
            mean = statistics.fmean(numbers) if numbers else 0.0
            same = sum(value * mean > 0 for value in numbers)
            by_seed = (f"{seed}: {number(d, signed=True)}" for seed, d in differences.items())
            row += [
                ", ".join(by_seed) or ABSENT,
                mean_std(numbers, signed=True),
                str(len(numbers)),
                f"{same} of {len(numbers)}" if numbers else ABSENT,
                spread.between(bounds),
                ABSENT if bounds is None else "yes" if bounds[0] <= 0 <= bounds[1] else "no",
            ]
        rows.append(row)
        warnings.append(unlike_teachers(results, pair, split, metric))
    header = ("comparison", "difference", "of")
    if one:
        header += ("value",)
        caption = f"{over_seeds(results)} One pair shows neither a difference nor its absence."
    else:
        header += ("by seed", "mean ± std", "n", "seeds with the mean's sign", "95% interval")
        header += ("interval contains 0",)
        caption = "Differences at equal seeds. The interval is Student's for the mean of the "
        caption += "pairs, not corrected for the number of comparisons."
    return make_table(results, header, rows, caption + "".join(dict.fromkeys(warnings)))


def _steps_mark(results: Mapping, pair: Sequence[str]) -> str:
    """Says so where two trained models were not trained equally long."""
    one, other = (steps_in_words(results, model) for model in pair)
    return f" ({one} and {other} steps)" if one and other and one != other else ""


def equal_steps(results: Mapping, spec: Mapping) -> Table:
    """The models of one plot after a quarter, a half, three quarters and all of the steps.

    Read at the latest step that every model and seed logged up to there, so at equal steps.
    """
    split, metric = spec.get("split", "train"), spec.get("metric", "loss")
    curves = {model: curve(results, model, split, metric) for model in spec["models"]}
    steps = spread.shared_steps(c for seeds in curves.values() for c in seeds.values())
    chosen = []
    for fraction in (0.25, 0.5, 0.75, 1.0) if steps else ():
        reached = [step for step in steps if step <= fraction * steps[-1]]
        if reached and reached[-1] not in chosen:
            chosen.append(reached[-1])
    rows = [
        [label(results, model)]
        + [
            mean_std([c[step] for c in logged.values()], of=len(spread.seeds(results)))
            for step in chosen
        ]
        for model, logged in curves.items()
    ]
    header = ["model"] + [f"step {step:,} ({step / steps[-1]:.0%})" for step in chosen]
    what = quantity(results, spec["models"], split, metric)
    caption = f"{what[0].upper()}{what[1:]} at equal steps, as logged. {over_seeds(results)}"
    caption += unlike_steps(results, spec["models"])
    return make_table(
        results, header, rows, caption + unlike_teachers(results, spec["models"], split, metric)
    )


def terms(results: Mapping) -> Table:
    """Each term of the objective at the end of the students' training."""
    distilled = [name for name in students(results) if at(results, "curves", name)]
    logged: dict[str, str] = {}  # term -> a model that has it
    for model in distilled:
        for name in at(results, "terms", model) or ():
            logged.setdefault(name, model)
    titles = [
        with_unit(t["title"], t["unit"]) for t in (term(results, m, n) for n, m in logged.items())
    ]
    of = len(spread.seeds(results))
    rows = [
        [label(results, model)]
        + [mean_std(values(results, model, "train", m).values(), of=of) for m in ("loss", *logged)]
        for model in distilled
    ]
    caption = f"The last logged training values. {over_seeds(results)}"
    return make_table(
        results,
        ["student", "objective", *titles],
        rows if logged else (),
        caption + unlike_teachers(results, distilled, "train", "loss"),
    )


def references(results: Mapping) -> Table:
    """What the original reported, beside what was measured here.

    Without rows unless the run read the corpus that the original's numbers are of.
    """
    rows = []
    for each in (at(results, "report", "references") or ()) if is_expected(results) else ():
        model, split = each["model"], each.get("split", "validation")
        metric, reduce = each.get("metric", "loss"), each.get("reduce")
        ours = values(results, model, split, metric, reduce).values()
        how = {None: "", "last": ", last logged", "mean": ", mean over training"}[reduce]
        scale = factor(unit_of(results, [model], split, metric))
        rows.append(
            [
                each.get("what", model),
                f"{scale * each['original']:.6g}",
                mean_std(ours, of=len(spread.seeds(results))),
                label(results, model),
                quantity(results, [model], split, metric) + how,
                plain(at(results, "models", model, "layers")),
                plain(at(results, "models", model, "width")),
            ]
        )
    header = ("what", "original", "ours", "our model", "our quantity", "our layers", "our width")
    source = at(results, "report", "reference_source")
    caption = (
        f"Original: {source}. Not measured here. " if source else "Original: not measured here. "
    )
    return make_table(results, header, rows, f"{caption}Ours: {over_seeds(results)}")


def check(results: Mapping) -> None:
    """Raise ValueError where the report names a model that the results do not have."""
    known = set(results.get("models") or ()) | set(results.get("curves") or ())
    needed = {
        "curves": ("models",),
        "comparisons": ("model", "baseline"),
        "references": ("original", "model"),
    }
    for kind, keys in needed.items():
        for i, each in enumerate(at(results, "report", kind) or ()):
            what = f"report.{kind}[{i}]"
            for key in keys:
                if key not in each:
                    raise ValueError(f"{what} has no {key!r}; it has {sorted(each)}")
            for model in (m for key in keys for m in _models(key, each[key])):
                if model not in known:
                    raise ValueError(
                        f"{what} names the model {model!r}, which the results do not have. "
                        + did_you_mean(model, known)
                    )


def _models(key: str, value: object) -> list[str]:
    if key == "original":  # a number
        return []
    return list(value) if key == "models" else [value]
