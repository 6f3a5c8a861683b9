"""The tables of a report."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from jaxkd.core.names import did_you_mean
from jaxkd.report import spread
from jaxkd.report.markup import Table
from jaxkd.report.spread import ABSENT, at, mean_std, number

NATS = {"loss", "kl", "mlm", "soft_targets", spread.UNDER}
# entries of a training log that are no terms of the objective
NO_TERMS = {
    "step",
    "split",
    "loss",
    "tokens_per_second",
    "learning_rate",
    "grad_norm",
    "step_seconds",
    "teraflops_per_second",
    "mfu",
}
NO_TERMS |= {"seconds", "unigram", "perplexity", "accuracy", "on_policy"}


def embedded(results: Mapping) -> bool:
    return bool(at(results, "data", "embedded"))


def wanted(results: Mapping) -> str:
    """The data set the experiment is about, whatever it had to run on."""
    return at(results, "data", "wanted") or "WikiText"


def _written() -> list[tuple[str, str, float]]:
    """Title, name and factor of what is measured of texts a model wrote, each way it wrote them."""
    kinds = [
        ("BLEU", "bleu", 1.0),
        ("chrF", "chrf", 1.0),
        ("ROUGE-1 [%]", "rouge1", 100.0),
        ("ROUGE-2 [%]", "rouge2", 100.0),
        ("ROUGE-L [%]", "rougeL", 100.0),
        ("exact match [%]", "exact", 100.0),
        ("steps right [%]", "steps", 100.0),
        ("actions right [%]", "actions", 100.0),
        ("answers right [%]", "answer", 100.0),
        ("letters wrong (CER) [%]", "cer", 100.0),
        ("a text alone takes [ms]", "latency", 1.0),
    ]
    return [
        (f"{title}, {way}", f"{name}_{way}", scale)
        for title, name, scale in kinds
        for way in ("greedy", "beam")
    ]


# What models with several tasks are asked (data/corpora/alfred_steps.py).
ASKED = [
    ("next sub-goal [%]", "accuracy_subgoal", 100.0),
    ("its object [%]", "accuracy_object", 100.0),
    ("next action [%]", "accuracy_action", 100.0),
    ("its argument [%]", "accuracy_argument", 100.0),
]
WRITTEN = _written() + ASKED


def not_its_numbers(results: Mapping) -> str:
    return f"Text: the embedded Python prose. These are not {wanted(results)} numbers."


def label(results: Mapping, model: str) -> str:
    return at(results, "report", "labels", model) or model


def names(metric: str) -> str:
    """A metric in words, with its unit.

    >>> names("kl"), names("soft_targets"), names("cosine"), names("exact_beam")
    ('KL to teacher [nats]', 'soft targets [nats]', 'cosine', 'exact match [fraction], beam')
    """
    words = {
        "kl": "KL to teacher",
        "mlm": "MLM",
        "accuracy": "accuracy [fraction]",
        "accuracy_5": "accuracy among five [fraction]",
        "agreement": "agreement with teacher [fraction]",
        **{metric: title.replace("[%]", "[fraction]") for title, metric, _ in WRITTEN},
        spread.UNDER: "distance under the unigram line",
    }
    return words.get(metric, metric.replace("_", " ")) + (" [nats]" if metric in NATS else "")


def students(results: Mapping) -> list[str]:
    """The models that were taught, those with a teacher."""
    models = results.get("models") or {}
    return [name for name, model in models.items() if (model or {}).get("teacher")]


def quantity(results: Mapping, models: Iterable[str], split: str, metric: str) -> str:
    """What a logged number is: a student's training loss is its whole objective, not in nats."""
    if split == "train" and metric == "loss" and set(models) & set(students(results)):
        return "training objective (weighted sum of its terms)"
    return f"{split} {names(metric)}"


def unlike_teachers(results: Mapping, models: Iterable[str], split: str, metric: str) -> str:
    """A warning where a number measures distance to a teacher and the teachers differ."""
    to_teacher = metric in {"kl", "agreement", "soft_targets", "cosine"}
    teachers = {at(results, "models", model, "teacher") for model in models} - {None}
    if len(teachers) < 2 or not (to_teacher or (split == "train" and metric == "loss")):
        return ""
    told = ", ".join(f"“{label(results, teacher)}”" for teacher in sorted(teachers))
    return f" Models with different teachers ({told}) are each measured against their own."


def over_seeds(results: Mapping) -> str:
    """How a caption says what ± is."""
    seeds = spread.seeds(results)
    if len(seeds) < 2:
        return f"One seed ({', '.join(seeds) or 'not named'}): no spread can be given."
    listed = ", ".join(seeds)
    return f"Mean ± sample standard deviation over n = {len(seeds)} seeds ({listed})."


def make_table(
    results: Mapping, header: Sequence[str], rows: Iterable[Sequence[str]], caption: str
) -> Table:
    # every table is made here, so that none can leave out where its text came from
    caption = f"{not_its_numbers(results)} {caption}" if embedded(results) else caption
    return Table(tuple(header), tuple(tuple(row) for row in rows), caption)


def _cell(results: Mapping, model: str, split: str, metric: str, scale: float = 1.0) -> str:
    found = spread.values(results, model, split, metric).values()
    return mean_std([scale * value for value in found], of=len(spread.seeds(results)))


def first_split(results: Mapping) -> str:
    """The split whose results stand first, and in results/README.md."""
    return at(results, "report", "split") or "validation"


def outcome(results: Mapping, split: str = "", compact: bool = False) -> Table:
    """Every model with its size and what it reached; `compact`, with fewer columns, is that of
    results/README.md."""
    split = split or first_split(results)
    columns: dict[str, Callable[[str, Mapping], str]] = {
        "model": lambda name, model: label(results, name),
        "layers": lambda name, model: plain(model.get("layers")),
        "width": lambda name, model: plain(model.get("width")),
        "parameters": lambda name, model: plain(model.get("parameters")),
        "MB": lambda name, model: plain(model.get("megabytes")),
    }
    measured = [
        (f"{split} loss [nats]", "loss", 1.0),
        ("nats under unigram", spread.UNDER, 1.0),
        ("perplexity", "perplexity", 1.0),
        ("accuracy [%]", "accuracy", 100.0),
        ("among five [%]", "accuracy_5", 100.0),
        ("KL to teacher [nats]", "kl", 1.0),
        ("agreement with teacher [%]", "agreement", 100.0),
    ]
    models = results.get("models") or {}
    measured += [
        (title, metric, scale)
        for title, metric, scale in WRITTEN
        if any(spread.values(results, name, split, metric) for name in models)
    ]
    ranked = any(spread.values(results, name, split, "accuracy_5") for name in models)
    for title, metric, scale in measured:
        columns[title] = lambda name, model, metric=metric, scale=scale: _cell(
            results, name, split, metric, scale
        )
    # Language models alone are asked for the five likeliest, and known by their perplexity.
    left_out = {"width", "MB", "perplexity"} if compact else set()
    left_out = left_out - {"perplexity"} if ranked else left_out | {"among five [%]"}
    if at(results, "data", "classes"):
        left_out |= {"nats under unigram", "perplexity"}
    columns = {title: cell for title, cell in columns.items() if title not in left_out}
    rows = [
        [cell(name, model or {}) for cell in columns.values()] for name, model in models.items()
    ]
    corpus = at(results, "data", "corpus")
    on = f"{split} split of {corpus}" if corpus else f"{split} split"
    caption = f"Evaluation on the {on}. {over_seeds(results)}"
    if "nats under unigram" in columns:
        caption += " Nats under unigram: what the loss is below the cross-entropy of a unigram "
        caption += "model at the same positions (negative: above it)."
    return make_table(results, tuple(columns), rows, caption)


def plain(value: object) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def comparisons(results: Mapping) -> Table:
    """Paired differences, seed by seed, with Student's interval of their mean."""
    rows, warnings = [], []
    for each in at(results, "report", "comparisons") or ():
        split, metric = each.get("split", "validation"), each.get("metric", "loss")
        pair = each["model"], each["baseline"]
        differences = spread.paired(results, each)
        numbers = list(differences.values())
        bounds = spread.interval(numbers)
        mean = statistics.fmean(numbers) if numbers else 0.0
        same = sum(value * mean > 0 for value in numbers)
        rows.append(
            [
                each.get("title", " - ".join(pair)),
                " minus ".join(label(results, model) for model in pair),
                quantity(results, pair, split, metric),
                ", ".join(f"{seed}: {number(d, signed=True)}" for seed, d in differences.items())
                or ABSENT,
                mean_std(numbers, signed=True),
                str(len(numbers)),
                f"{same} of {len(numbers)}" if numbers else ABSENT,
                spread.between(bounds),
                ABSENT if bounds is None else "yes" if bounds[0] <= 0 <= bounds[1] else "no",
            ]
        )
        warnings.append(unlike_teachers(results, pair, split, metric))
    header = ("comparison", "difference", "of", "by seed", "mean ± std", "n")
    header += ("seeds with the mean's sign", "95% interval", "interval contains 0")
    caption = "Differences at equal seeds. The interval is Student's for the mean of the pairs, "
    caption += "not corrected for the number of comparisons."
    return make_table(results, header, rows, caption + "".join(dict.fromkeys(warnings)))


def equal_steps(results: Mapping, spec: Mapping) -> Table:
    """The arms of one plot after a quarter, a half, three quarters and all of the steps.

    Read at the latest step that every arm and seed logged up to there, so at equal steps.
    """
    split, metric = spec.get("split", "train"), spec.get("metric", "loss")
    curves = {model: spread.curve(results, model, split, metric) for model in spec["models"]}
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
    return make_table(
        results, header, rows, caption + unlike_teachers(results, spec["models"], split, metric)
    )


def terms(results: Mapping) -> Table:
    """Each term of the objective at the end of the students' training."""
    taught = [name for name in students(results) if at(results, "curves", name)]
    found: dict[str, None] = {}
    for name in taught:
        for logged in results["curves"][name].values():
            for entry in logged:
                if entry.get("split") == "train":
                    found.update(dict.fromkeys(key for key in entry if key not in NO_TERMS))
    metrics = ["loss", *found]
    rows = [
        [label(results, name)]
        + [
            mean_std(
                spread.values(results, name, "train", m).values(), of=len(spread.seeds(results))
            )
            for m in metrics
        ]
        for name in taught
    ]
    header = ["student", "objective", *map(names, found)]
    caption = f"The last logged training values. {over_seeds(results)}"
    return make_table(
        results, header, rows, caption + unlike_teachers(results, taught, "train", "loss")
    )


def references(results: Mapping) -> Table:
    """What the original reported, beside what was measured here."""
    rows = []
    for each in at(results, "report", "references") or ():
        model, split = each["model"], each.get("split", "validation")
        metric, reduce = each.get("metric", "loss"), each.get("reduce")
        ours = spread.values(results, model, split, metric, reduce).values()
        how = {None: "", "last": ", last logged", "mean": ", mean over training"}[reduce]
        rows.append(
            [
                each.get("what", model),
                str(each["original"]),
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
    """Raises ValueError where the report asks for a model that the results do not have."""
    known = set(results.get("models") or ()) | set(results.get("curves") or ())
    needed = {
        "curves": ("models",),
        "comparisons": ("model", "baseline"),
        "references": ("original", "model"),
    }
    for kind, keys in needed.items():
        for place, each in enumerate(at(results, "report", kind) or ()):
            what = f"report.{kind}[{place}]"
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
