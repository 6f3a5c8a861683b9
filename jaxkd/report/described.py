"""What a results file says of its metrics and models: titles, units, labels, steps, the corpus."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxkd.report import spread
from jaxkd.report.spread import at


def about(results: Mapping, metric: str) -> Mapping[str, Any]:
    """A metric's title, unit and direction as its results file has them; its name where it has not.

    >>> about({"metrics": {"mcc": {"title": "MCC"}}}, "mcc")["title"], about({}, "a_b")["title"]
    ('MCC', 'a b')
    """
    defaults = {"title": metric.replace("_", " "), "unit": "", "columns": "all"}
    return defaults | dict(at(results, "metrics", metric) or {})


def factor(unit: str) -> float:
    """What a number is multiplied by to be shown in its unit: fractions are stored."""
    return 100.0 if unit == "%" else 1.0


def with_unit(title: str, unit: str) -> str:
    return f"{title} [{unit}]" if unit else title


def column_title(results: Mapping, metric: str) -> str:
    """A metric's title with its unit, for the head of a column."""
    return with_unit(about(results, metric)["title"], about(results, metric)["unit"])


def term(results: Mapping, model: str, name: str) -> Mapping[str, Any]:
    """A term of a model's objective: its title and unit."""
    defaults = {"title": name.replace("_", " "), "unit": ""}
    return defaults | dict(at(results, "terms", model, name) or {})


def unit_of(results: Mapping, models: Iterable[str], split: str, metric: str) -> str:
    """The unit of a metric, or of a term of the objective where the split is "train"."""
    if split != "train" or metric == "loss":
        return about(results, metric)["unit"]
    return next((term(results, m, metric)["unit"] for m in models), "")


def values(
    results: Mapping, model: str, split: str, metric: str, reduce: str | None = None
) -> dict[str, float]:
    """{seed: value}, in the unit in which it is shown."""
    scale = factor(unit_of(results, [model], split, metric))
    measured = spread.values(results, model, split, metric, reduce)
    return {seed: scale * value for seed, value in measured.items()}


def curve(results: Mapping, model: str, split: str, metric: str) -> dict[str, dict[int, float]]:
    """{seed: {step: value}}, in the unit in which it is shown."""
    scale = factor(unit_of(results, [model], split, metric))
    logged = spread.curve(results, model, split, metric)
    return {seed: {k: scale * v for k, v in steps.items()} for seed, steps in logged.items()}


def paired(results: Mapping, comparison: Mapping) -> dict[str, float]:
    """{seed: difference of the two models}, in the unit in which it is shown."""
    split, metric = comparison.get("split", "validation"), comparison.get("metric", "loss")
    scale = factor(unit_of(results, [comparison["model"]], split, metric))
    return {s: scale * value for s, value in spread.paired(results, comparison).items()}


def label(results: Mapping, model: str) -> str:
    return at(results, "report", "labels", model) or model


def students(results: Mapping) -> list[str]:
    """The models that have a teacher."""
    models = results.get("models") or {}
    return [name for name, model in models.items() if (model or {}).get("teacher")]


def quantity(results: Mapping, models: Iterable[str], split: str, metric: str) -> str:
    """What a number is: a student's training loss is its whole objective, which has no unit."""
    models = list(models)
    if split == "train" and metric == "loss":
        if set(models) & set(students(results)):
            return "training objective (weighted sum of its terms)"
        return with_unit("training loss", about(results, metric)["unit"])
    if split == "train" and models:
        own = term(results, models[0], metric)
        return with_unit(f"training {own['title']}", own["unit"])
    return f"{split} {column_title(results, metric)}"


def baselines(results: Mapping, metric: str) -> list[str]:
    """The metrics that say what a constant answer reaches of this one."""
    described = results.get("metrics") or {}
    return [name for name, each in described.items() if each.get("baseline_of") == metric]


def baseline_value(results: Mapping, name: str, split: str) -> float | None:
    """A baseline of a split, in its unit: the same for all models and seeds."""
    for model in results.get("models") or ():
        for value in values(results, model, split, name).values():
            return value
    return None


def steps_in_words(results: Mapping, model: str) -> str:
    """How many steps a model was trained, "1,200" or "5,500 to 6,000"; empty: it was not."""
    trained = spread.trained_steps(results, model)
    if not trained:
        return ""
    low, high = min(trained), max(trained)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def rows_of(results: Mapping, split: str, metric: str) -> int | None:
    """How many rows of the split a metric was measured on."""
    return at(about(results, metric), "rows", split) or at(results, "data", "rows", split)


def embedded(results: Mapping) -> bool:
    """Whether the run read the text that comes with the project, or with Python, and no corpus."""
    return bool(at(results, "data", "embedded"))


def expected_corpus(results: Mapping) -> str | None:
    """The corpus the experiment and its references are about, whatever the run has read."""
    data = results.get("data") or {}
    return data.get("expected_corpus") or data.get("wanted") or None


def is_expected(results: Mapping) -> bool:
    """Whether the run read the corpus that the experiment's references are about."""
    corpus, expected = at(results, "data", "corpus"), expected_corpus(results)
    if embedded(results):
        return False
    return expected is None or corpus is None or str(corpus).startswith(expected)
