"""What a report says in sentences: its headline, its findings, the original's numbers."""

import statistics
from collections.abc import Mapping

from jaxkd.report import spread
from jaxkd.report.described import (
    about,
    embedded,
    expected_corpus,
    is_expected,
    label,
    paired,
    quantity,
    rows_of,
    students,
    unit_of,
    values,
)
from jaxkd.report.spread import at, mean_std
from jaxkd.report.tables import first_split, over_seeds


def banner(results: Mapping) -> str:
    """What a report on the embedded text says before all else."""
    expected = expected_corpus(results)
    name = f", NOT {expected.upper()}" if expected else ""
    no_number = f" No number in this report is a {expected} number." if expected else ""
    return (
        f"THE TEXT IS EMBEDDED{name}. No corpus was read: the models saw text that comes with the "
        f"project or with Python.{no_number}"
    )


def title(results: Mapping) -> str:
    """The experiment's title; loud where the text is embedded."""
    plain = str(results.get("title") or results.get("experiment") or "Results")
    if not embedded(results):
        return plain
    expected = expected_corpus(results)
    return f"EMBEDDED TEXT{f', NOT {expected.upper()}' if expected else ''}: {plain}"


def headline(results: Mapping) -> str | None:
    """The main result in one sentence, with its n; None if nothing was measured.

    The first comparison of the report; without one the primary metric of each student and its
    teacher, or of every model.
    """
    for each in at(results, "report", "comparisons") or ():
        split, metric = each.get("split", "validation"), each.get("metric", "loss")
        pair = each["model"], each["baseline"]
        if paired(results, each):
            return _measured(results, pair, split, metric, each.get("reduce"))
    split, metric = first_split(results), results.get("primary") or "loss"
    models = results.get("models") or {}
    chosen = students(results)[:1]
    chosen += [models[name]["teacher"] for name in chosen]
    chosen = [name for name in chosen or models if values(results, name, split, metric)]
    return _measured(results, chosen[:4], split, metric) if chosen else None


def _measured(
    results: Mapping, models: list[str] | tuple[str, ...], split: str, metric: str,
    reduce: str | None = None,
) -> str:  # fmt: skip
    unit = unit_of(results, models, split, metric)
    space = "" if unit == "%" else " "
    what = quantity(results, models, split, metric).removesuffix(f" [{unit}]")
    parts = []
    for model in models:
        cell = mean_std(values(results, model, split, metric, reduce).values())
        parts.append(f"“{label(results, model)}” {cell}{space}{unit}".rstrip())
    seeds = spread.seeds(results)
    n = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    rows = rows_of(results, split, metric) if split != "train" else None
    on = f", {rows:,} rows" if rows else ""
    return f"{what[0].upper()}{what[1:]}: {', '.join(parts)} ({n}{on})."


def findings(results: Mapping) -> list[str]:
    """One sentence a comparison, saying no more than its numbers do.

    With one seed a single sentence: a pair alone has no interval.
    """
    comparisons = at(results, "report", "comparisons") or ()
    if comparisons and len(spread.seeds(results)) < 2:
        return []
    sentences = []
    for each in comparisons:
        numbers = list(paired(results, each).values())
        pair = [label(results, each[side]) for side in ("model", "baseline")]
        bounds = spread.interval(numbers)
        heading = each.get("title", " - ".join(pair))
        if not numbers:
            sentences.append(f"{heading}: no seed has both values, so nothing can be said.")
            continue
        split, metric = each.get("split", "validation"), each.get("metric", "loss")
        what = quantity(results, (each["model"], each["baseline"]), split, metric)
        text = f"{heading}: {what} of “{pair[0]}” minus that of “{pair[1]}” is "
        text += f"{mean_std(numbers, signed=True)} (n = {len(numbers)}). "
        if bounds is None and len(numbers) > 1:
            text += "Not every difference is a finite number, so there is no interval."
        elif bounds is None:
            text += "One pair shows neither a difference nor its absence."
        elif bounds[0] <= 0 <= bounds[1]:
            text += f"The 95% interval, {spread.between(bounds)}, contains 0: no difference is "
            text += "shown."
        else:
            text += f"The 95% interval, {spread.between(bounds)}, does not contain 0"
            higher = about(results, metric).get("higher_is_better") if split != "train" else None
            if higher is None:
                text += "."
            else:
                winner = pair[0] if (statistics.fmean(numbers) > 0) == higher else pair[1]
                text += f": “{winner}” is better."
        sentences.append(text)
    return sentences


def originals(results: Mapping) -> list[str]:
    """How far below the unigram line the original's teachers were, from the data's own line."""
    if not at(results, "report", "references"):
        return []
    if not is_expected(results):
        read = at(results, "data", "corpus") if not embedded(results) else "the embedded text"
        return [
            f"The experiment's references are measured on {expected_corpus(results)}, and this run "
            f"read {read}: they are not shown."
        ]
    sentences = []
    for each in results["report"]["references"]:
        split = each.get("split", "validation")
        line = at(results, "data", "unigram_nats", split)
        student = at(results, "models", each["model"], "teacher")
        if line is None or split == "train" or student or each.get("metric", "loss") != "loss":
            continue
        under = line - each["original"]
        text = f"The original's {each.get('what', each['model'])}, {each['original']}, lies "
        text += f"{abs(under):.2f} nats {'under' if under >= 0 else 'over'} the unigram line of "
        text += f"the {split} split ({line:.2f} nats)"
        ours = values(results, each["model"], split, "under_unigram").values()
        if ours:
            mean = statistics.fmean(ours)
            side = 1 if mean >= 0 else -1
            text += f"; ours is {mean_std(side * value for value in ours)} nats "
            text += "under" if mean >= 0 else "over"
            text += " the line at the positions it was evaluated at"
        sentences.append(text + ".")
    tokenizer = at(results, "data", "tokenizer")
    if sentences and tokenizer:
        sentences.append(
            f"The unigram line is counted with this run's tokenizer ({tokenizer}); it is the "
            "original's line too only for the same text, split and vocabulary."
        )
    return sentences


def seeds_note(results: Mapping) -> str:
    """Said once at the top of a report of one seed."""
    if len(spread.seeds(results)) != 1:
        return ""
    # Optimizers that were compared have seeds of their own.
    numbers = "Only optimizers' numbers have" if results.get("optimizers") else "No number here has"
    return f"{over_seeds(results)} {numbers} a spread."
