"""Writes a results file's report: report.md, report.html that needs no other file, and plots."""

import base64
import dataclasses
import html as escaping
import json
import os
import pathlib
import re
import statistics
from collections.abc import Mapping
from typing import Any

from jaxkd.report import markup, plots, provenance, spread, tables
from jaxkd.report.markup import Table, escape_markdown
from jaxkd.report.spread import at, mean_std

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 78rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #ccc; }
pre { background: #f4f4f4; padding: .6rem .8rem; overflow-x: auto; }
.banner { border: 3px solid #b00020; background: #fdecee; padding: .7rem 1rem; font-weight: 700; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .86rem; }
caption { caption-side: bottom; text-align: left; color: #555; padding-top: .4rem; }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #ddd; text-align: left;
  vertical-align: top; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
tbody th { font-weight: 500; min-width: 13rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
img { max-width: 100%; height: auto; }
@media print { body { font-size: 10pt; max-width: none; margin: 0; } h2 { break-after: avoid; }
  tr, img, .banner { break-inside: avoid; } .wide { overflow: visible; }
  table { font-size: 7.5pt; } th, td { padding: .15rem .3rem; } tbody th { min-width: 0; } }
"""


@dataclasses.dataclass(frozen=True)
class Plot:
    name: str  # the file's
    alt: str
    png: bytes


@dataclasses.dataclass(frozen=True)
class Section:
    heading: str
    parts: tuple[str | Table | Plot, ...]  # a str is a paragraph


def banner(results: Mapping) -> str:
    wanted = tables.wanted(results)
    return (
        f"THE TEXT IS EMBEDDED PYTHON PROSE, NOT {wanted.upper()}. No corpus could be had, so the "
        f"models read documentation that Python carries. No number in this report is a {wanted} "
        "number."
    )


def title(results: Mapping) -> str:
    plain = str(results.get("title") or results.get("experiment") or "Results")
    if not tables.embedded(results):
        return plain
    return f"EMBEDDED TEXT, NOT {tables.wanted(results).upper()}: {plain}"


def findings(results: Mapping) -> list[str]:
    """One sentence a comparison, saying no more than its numbers do."""
    told = []
    for each in at(results, "report", "comparisons") or ():
        numbers = list(spread.paired(results, each).values())
        pair = [tables.label(results, each[side]) for side in ("model", "baseline")]
        bounds = spread.interval(numbers)
        heading = each.get("title", " - ".join(pair))
        if not numbers:
            told.append(f"{heading}: no seed has both values, so nothing can be said.")
            continue
        split, metric = each.get("split", "validation"), each.get("metric", "loss")
        what = tables.quantity(results, (each["model"], each["baseline"]), split, metric)
        text = f"{heading}: {what} of “{pair[0]}” minus that of “{pair[1]}” is "
        text += f"{mean_std(numbers, signed=True)} (n = {len(numbers)}). "
        if bounds is None and len(numbers) > 1:
            text += "Not every difference is a finite number, so there is no interval."
        elif bounds is None:
            text += "One pair has no spread: it shows neither a difference nor its absence."
        else:
            holds = bounds[0] <= 0 <= bounds[1]
            text += f"The 95% interval, {spread.between(bounds)}, "
            text += "contains 0: no difference is shown." if holds else "does not contain 0."
        told.append(text)
    return told


def originals(results: Mapping) -> list[str]:
    """How far under the unigram line the original's teachers were, from the data's own line."""
    if not at(results, "report", "references"):
        return []
    if tables.embedded(results):
        return ["The original's numbers are of another text: nothing here compares with them."]
    told = []
    for each in results["report"]["references"]:
        split = each.get("split", "validation")
        line = at(results, "data", "unigram_nats", split)
        untaught = not at(results, "models", each["model"], "teacher")
        if line is None or split == "train" or not untaught or each.get("metric") != "loss":
            continue
        under = line - each["original"]
        text = f"The original's {each.get('what', each['model'])}, {each['original']}, lies "
        text += f"{abs(under):.2f} nats {'under' if under >= 0 else 'over'} the unigram line of "
        text += f"the {split} split ({line:.2f} nats)"
        found = spread.values(results, each["model"], split, spread.UNDER).values()
        if found:
            mean = statistics.fmean(found)
            side = 1 if mean >= 0 else -1
            text += f"; ours is {mean_std(side * value for value in found)} nats "
            text += "under" if mean >= 0 else "over"
            text += " the line at the positions it was evaluated at"
        told.append(text + ".")
    tokenizer = at(results, "data", "tokenizer")
    if told and tokenizer:
        told.append(
            f"The unigram line is counted with this run's tokenizer ({tokenizer}); it is the "
            "original's line too only for the same text, split and vocabulary."
        )
    return told


def _slug(text: str, taken: set[str]) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "curve"
    name, again = plain, 2
    while name in taken:
        name, again = f"{plain}-{again}", again + 1
    taken.add(name)
    return f"{name}.png"


def sections(results: Mapping) -> list[Section]:
    """The report in order, neither markdown nor HTML yet; sections with nothing to say left out."""
    evaluated = {
        split
        for model in (results.get("models") or {}).values()
        for seed in ((model or {}).get("seeds") or {}).values()
        for split in seed or {}
    }
    taken: set[str] = set()
    made = [Section("Results", (tables.outcome(results),))] if results.get("models") else []
    if at(results, "report", "comparisons"):
        png = plots.differences(results)
        plot = [Plot(_slug("paired-differences", taken), "Paired differences", png)] if png else []
        marks = ["Dots: seeds. Tick and bar: their mean and its 95% interval."] if png else []
        parts = (*findings(results), tables.comparisons(results), *plot, *marks)
        made.append(Section("Comparisons", parts))
    for spec in at(results, "report", "curves") or ():
        heading = spec.get("title") or "Curve"
        png = plots.curves(results, spec)
        if png is None:
            made.append(Section(heading, ("Nothing was logged for this plot.",)))
            continue
        band = "Line: mean over seeds. Band: from the lowest to the highest seed."
        plot = Plot(_slug(heading, taken), heading, png)
        made.append(Section(heading, (plot, band, tables.equal_steps(results, spec))))
    losses = tables.terms(results)
    if losses.rows:
        made.append(Section("Terms of the objective at the end of training", (losses,)))
    if at(results, "report", "references"):
        parts = (*originals(results), tables.references(results))
        made.append(Section("Beside the original", parts))
    for split in sorted(evaluated - {tables.first_split(results)}):
        made.append(Section(f"Results, {split} split", (tables.outcome(results, split),)))
    if results.get("exports"):
        made.append(Section("Files for others", (provenance.exports(results),)))
    if results.get("data"):
        made.append(Section("Data", (provenance.data(results),)))
    ran = (provenance.where(results), provenance.stages(results))
    made.append(Section("What ran where", ran))
    return made


def _markdown(results: Mapping, body: list[Section]) -> str:
    parts = [f"# {escape_markdown(title(results))}"]
    if tables.embedded(results):
        parts.append(f"> **{escape_markdown(banner(results))}**")
    if results.get("command"):
        parts.append("    " + " ".join(str(results["command"]).split()))
    for section in body:
        parts.append(f"## {escape_markdown(section.heading)}")
        for part in section.parts:
            if isinstance(part, Table):
                parts.append(markup.markdown(part).rstrip())
            elif isinstance(part, Plot):
                parts.append(f"![{escape_markdown(part.alt)}]({part.name})")
            else:
                parts.append(escape_markdown(part))
    return "\n\n".join(parts) + "\n"


def _html(results: Mapping, body: list[Section]) -> str:
    escape = escaping.escape
    parts = [f"<h1>{escape(title(results))}</h1>"]
    if tables.embedded(results):
        parts.append(f'<p class="banner">{escape(banner(results))}</p>')
    if results.get("command"):
        parts.append(f"<pre><code>{escape(str(results['command']))}</code></pre>")
    for section in body:
        parts.append(f"<h2>{escape(section.heading)}</h2>")
        for part in section.parts:
            if isinstance(part, Table):
                parts.append(markup.html(part))
            elif isinstance(part, Plot):
                image = base64.b64encode(part.png).decode()
                source = f"data:image/png;base64,{image}"
                parts.append(f'<p><img alt="{escape(part.alt)}" src="{source}"></p>')
            else:
                parts.append(f"<p>{escape(part)}</p>")
    content = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title(results))}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{content}\n</body>\n</html>\n"
    )


def _replace(path: pathlib.Path, content: bytes) -> None:
    """The file is the old one or the new one at any moment, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _as_in_a_file(results: Mapping) -> dict[str, Any]:
    # keys of a file are strings; a dict straight from a run may have its seeds as integers
    results = json.loads(json.dumps(results))
    tables.check(results)
    return results


def write(results: Mapping, folder: pathlib.Path) -> list[pathlib.Path]:
    """report.md, report.html and the plots, in a folder that is made if need be.

    Raises:
      ValueError: if the report asks for a model that the results do not have.
    """
    results = _as_in_a_file(results)
    body = sections(results)
    files = {"report.md": _markdown(results, body).encode(), "report.html": b""}
    files["report.html"] = _html(results, body).encode()
    files |= {p.name: p.png for section in body for p in section.parts if isinstance(p, Plot)}
    folder.mkdir(parents=True, exist_ok=True)
    for name in reversed(files):  # plots first: a report never names one that is not there yet
        _replace(folder / name, files[name])
    return [folder / name for name in files]


def summary(results: Mapping) -> str:
    """The results as one compact markdown table, for results/README.md and the end of a run."""
    results = _as_in_a_file(results)
    loud = f"**{escape_markdown(banner(results))}**\n\n" if tables.embedded(results) else ""
    if not results.get("models") and results.get("exports"):
        return loud + markup.markdown(provenance.exports(results))
    return loud + markup.markdown(tables.outcome(results, compact=True))
