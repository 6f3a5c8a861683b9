"""Writes a results file's report: report.md, report.html that needs no other file, and plots."""

import base64
import functools
import html as escaping
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from jaxkd.report import (
    bundles,
    early_exit,
    early_exit_tables,
    markup,
    optimizers,
    plots,
    provenance,
    search,
    tables,
)
from jaxkd.report.described import embedded, is_expected, label
from jaxkd.report.markup import Plot, Section, Table, escape_markdown
from jaxkd.report.sentences import banner, findings, headline, originals, seeds_note, title
from jaxkd.report.spread import at

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 78rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #ccc; }
pre { background: #f4f4f4; padding: .6rem .8rem; overflow-x: auto; }
.banner { border: 3px solid #b00020; background: #fdecee; padding: .7rem 1rem; font-weight: 700; }
.headline { font-size: 1.1rem; font-weight: 600; }
.wide { overflow-x: auto; max-width: 100%; margin: 1rem 0; }
.wide th:first-child { position: sticky; left: 0; background: #fff; }
table { border-collapse: collapse; font-size: .86rem; }
caption { caption-side: bottom; text-align: left; color: #555; padding-top: .4rem; }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #ddd; text-align: left;
  vertical-align: top; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
tbody th { font-weight: 500; min-width: 9rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
img { max-width: 100%; height: auto; }
@media print { body { font-size: 10pt; max-width: none; margin: 0; } h2 { break-after: avoid; }
  tr, img, .banner { break-inside: avoid; } .wide { overflow: visible; }
  table { font-size: 7.5pt; } th, td { padding: .15rem .3rem; } tbody th { min-width: 0; } }
"""


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
    made += search.sections(results, lambda heading: _slug(heading, taken))
    made += optimizers.sections(results, lambda heading: _slug(heading, taken))
    made += _early_exits(results, taken)
    made += provenance.examples(results)
    for spec in at(results, "report", "curves") or ():
        heading = spec.get("title") or "Curve"
        png = plots.curves(results, spec)
        if png is None:
            made.append(Section(heading, ("Nothing was logged for this plot.",)))
            continue
        note = plots.note(results, spec)
        plot = Plot(_slug(heading, taken), heading, png)
        made.append(Section(heading, (plot, note, tables.equal_steps(results, spec))))
    terms = tables.terms(results)
    if terms.rows:
        made.append(Section("Terms of the objective at the end of training", (terms,)))
    if at(results, "report", "references"):
        parts = tuple(originals(results))
        if is_expected(results):
            parts += (tables.references(results),)
        made.append(Section("Beside the original", parts))
    for split in sorted(evaluated - {tables.first_split(results)}):
        made.append(Section(f"Results, {split} split", (tables.outcome(results, split),)))
    if results.get("exports"):
        made.append(Section("Exported files", (provenance.exports(results),)))
    made += _bundles(results, taken)
    if results.get("data"):
        made.append(Section("Data", (provenance.data(results),)))
    ran = (provenance.where(results), provenance.stages(results))
    made.append(Section("Machine and stages", ran))
    return made


def _early_exits(results: Mapping, taken: set[str]) -> list[Section]:
    """Score over time of each stage that ran a model with early exits."""
    made = []
    for stage in results.get("early_exit") or ():
        runs = early_exit.measured(results, stage)
        heading = f"Early exit: {label(results, runs[0]['model'])}"
        plot = Plot(_slug(f"{stage}-score-over-time", taken), "Score over wall-clock time",
                    plots.score_over_time(results, stage))  # fmt: skip
        equal_score = early_exit_tables.settings_table(
            results, runs, early_exit.at_equal_score,
            "The fastest setting whose score on the calibration split is at most half a point "
            "below the whole model's.",
        )  # fmt: skip
        parts = [
            early_exit_tables.introduction(results, runs),
            plot,
            "At equal score:",
            equal_score,
        ]
        for size in early_exit.batch_sizes(runs):
            choose = functools.partial(early_exit.at_equal_time, size=size)
            caption = (
                f"The best setting at least {early_exit.TIMES_AS_FAST} times as fast as the whole "
                f"model at batch {size}, by the calibration split."
            )
            parts.append(f"At equal time, batch {size}:")
            parts.append(early_exit_tables.settings_table(results, runs, choose, caption, (size,)))
        parts.append(early_exit_tables.areas_table(results, runs))
        expected = early_exit_tables.expectations_table(results, runs)
        parts += [early_exit_tables.exits_table(results, runs), *([expected] if expected else [])]
        made.append(Section(heading, tuple(parts)))
    return made


def _bundles(results: Mapping, taken: set[str]) -> list[Section]:
    """Memory and time of each stage's bundles in their own runner."""
    made = []
    for stage in results.get("exports") or ():
        measured = bundles.measured(results, stage)
        if not measured:
            continue
        parts: list[Any] = [bundles.memory_table(results, measured)]
        for name, png in (
            ("Memory after each layer", bundles.memory_by_layer(results, measured)),
            ("Score over time on the bundle", bundles.score_over_time(results, measured)),
        ):
            if png is not None:
                parts.append(Plot(_slug(f"{stage}-{name}", taken), name, png))
        made.append(Section(f"On a device: {stage}", tuple(parts)))
    return made


def _opening(results: Mapping) -> list[str]:
    """The sentences above the first section."""
    return [text for text in (headline(results), seeds_note(results)) if text]


def _markdown(results: Mapping, body: list[Section]) -> str:
    parts = [f"# {escape_markdown(title(results))}"]
    if embedded(results):
        parts.append(f"> **{escape_markdown(banner(results))}**")
    if results.get("command"):
        parts.append("    " + " ".join(str(results["command"]).split()))
    for i, sentence in enumerate(_opening(results)):
        text = escape_markdown(sentence)
        parts.append(f"**{text}**" if i == 0 and headline(results) else text)
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


def plot_html(plot: Plot) -> str:
    """A paragraph that holds the picture itself."""
    image = base64.b64encode(plot.png).decode()
    alt = escaping.escape(plot.alt)
    return f'<p><img alt="{alt}" src="data:image/png;base64,{image}"></p>'


def _html(results: Mapping, body: list[Section]) -> str:
    escape = escaping.escape
    parts = [f"<h1>{escape(title(results))}</h1>"]
    if embedded(results):
        parts.append(f'<p class="banner">{escape(banner(results))}</p>')
    if results.get("command"):
        parts.append(f"<pre><code>{escape(str(results['command']))}</code></pre>")
    for i, sentence in enumerate(_opening(results)):
        kind = ' class="headline"' if i == 0 and headline(results) else ""
        parts.append(f"<p{kind}>{escape(sentence)}</p>")
    for section in body:
        parts.append(f"<h2>{escape(section.heading)}</h2>")
        for part in section.parts:
            if isinstance(part, Table):
                parts.append(markup.html(part))
            elif isinstance(part, Plot):
                parts.append(plot_html(part))
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
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


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
    loud = f"**{escape_markdown(banner(results))}**\n\n" if embedded(results) else ""
    return loud + markup.markdown(summary_table(results))


def summary_table(results: Mapping) -> Table:
    """The results in one table: of models, or, where none was measured, of what else was done."""
    results = _as_in_a_file(results)
    if results.get("models"):
        return tables.outcome(results, compact=True)
    for part, table in (
        ("optimizers", optimizers.first_table),
        ("search", search.first_table),
        ("exports", provenance.exports),
    ):
        if results.get(part):
            return table(results)
    return tables.outcome(results, compact=True)
