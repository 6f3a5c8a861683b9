"""Several results files in one table, a row for each: `python -m jaxkd.report.collection FILES`.

    python -m jaxkd.report.collection runs/glue-*/results.json --folder results/glue-minilm

Files of one experiment with other seeds, as of several machines, become one row. The folder gets
report.md, report.html and each row's results file, from which the same command renders them again.
"""

import argparse
import html as escaping
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd.report import early_exit_summary, markup, spread, tables
from jaxkd.report.described import column_title, label, values
from jaxkd.report.joined import joined
from jaxkd.report.markup import Plot, Table, escape_markdown
from jaxkd.report.spread import at, mean_std
from jaxkd.report.write import STYLE, plot_html

PRIMARY = "primary"


def metrics_of(results: Mapping) -> list[str]:
    """The task's own metrics, its primary one first; without losses and those beside a teacher."""
    described = results.get("metrics") or {}
    primary = results.get(PRIMARY)
    own = [
        name
        for name, about in described.items()
        if about.get("higher_is_better") and not about.get("of_teacher") and name != primary
        and not about.get("baseline_of") and name.partition("_")[0] not in ("under", "perplexity")
    ]  # fmt: skip
    return [primary, *own] if primary else own


def table(every: Sequence[Mapping], title: str) -> Table:
    """A row for each data set, split and metric; a column for each model."""
    models: dict[str, str] = {}
    for results in every:
        for name in results.get("models") or {}:
            models.setdefault(name, label(results, name))
    rows, notes = [], []
    for results in every:
        data = results.get("data") or {}
        splits = dict.fromkeys(
            split
            for model in (results.get("models") or {}).values()
            for seed in (model.get("seeds") or {}).values()
            for split in seed
        )
        seeds = spread.seeds(results)
        for split in splits:
            for metric in metrics_of(results):
                cells = []
                for name in models:
                    by_seed = values(results, name, split, metric).values()
                    cells.append(mean_std(by_seed, of=len(seeds)))
                if any(cell != spread.ABSENT for cell in cells):
                    where = f"{data.get('corpus')}, {split}"
                    counts = (at(results, "data", "rows", each) for each in ("train", split))
                    rows.append(
                        [where, *(f"{count:,}" if count else spread.ABSENT for count in counts),
                         column_title(results, metric), str(len(seeds)), *cells]
                    )  # fmt: skip
        notes += [note for note in data.get("notes") or () if note not in notes]
        if data.get("embedded"):
            notes.append(f"{data.get('corpus')} is a stand-in: no numbers of the data set.")
    header = ("data", "training rows", "rows", "metric", "seeds", *models.values())
    caption = "Mean ± sample standard deviation over the seeds. " + " ".join(
        note if note.endswith(".") else f"{note}." for note in notes
    )
    return Table(header, tuple(tuple(row) for row in rows), caption.strip())


def references(every: Sequence[Mapping]) -> Table:
    """What originals reported of the same data sets, beside the models of these runs."""
    kept = ("what", "original", "ours", "our model", "our quantity")
    rows: list[tuple[str, ...]] = []
    sources: dict[str, None] = {}
    for results in every:
        own = tables.references(results)
        columns = [own.header.index(name) for name in kept]
        rows += [tuple(row[column] for column in columns) for row in own.rows]
        if own.rows:
            sources[str(at(results, "report", "reference_source") or "")] = None
    caption = f"Original: {'; '.join(filter(None, sources))}. Not measured here."
    return Table(kept, tuple(rows), caption)


def conditions(every: Sequence[Mapping]) -> Table:
    """What each run took, on which machine, by which command."""
    rows = []
    for results, run in ((each, run) for each in every for run in each.get("parts") or (each,)):
        where = run.get("where") or {}
        stages = run.get("stages") or {}
        seconds = sum(sum((each.get("seconds") or {}).values()) for each in stages.values())
        rows.append(
            [
                str((results.get("data") or {}).get("corpus")),
                f"{seconds:,.0f}",
                f"{where.get('devices')} x {where.get('device')}, {where.get('processor')}",
                str((where.get("versions") or {}).get("jax")),
                str(where.get("revision")),
                str(run.get("command")),
            ]
        )
    header = ("data", "seconds", "device", "jax", "revision", "command")
    return Table(header, tuple(tuple(row) for row in rows), "All stages and seeds together.")


def write(every: Sequence[Mapping], folder: pathlib.Path, title: str) -> list[pathlib.Path]:
    """report.md and report.html of several results, and a copy of each file."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[tuple[str, Table | Plot]] = [
        ("Results", table(every, title)),
        ("What ran where", conditions(every)),
    ]
    if (originals := references(every)).rows:
        parts.insert(1, ("Beside the originals", originals))
    parts[1:1] = early_exit_summary.summary(every)
    body = [f"# {escape_markdown(title)}"]
    page = [f"<h1>{escaping.escape(title)}</h1>"]
    for heading, each in parts:
        if isinstance(each, Plot):
            rendered = f"![{escape_markdown(each.alt)}]({each.name})", plot_html(each)
        else:
            rendered = markup.markdown(each).rstrip(), markup.html(each)
        body += [f"## {heading}", rendered[0]]
        page += [f"<h2>{heading}</h2>", rendered[1]]
    files = {
        "report.md": "\n\n".join(body) + "\n",
        "report.html": '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escaping.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(page)
        + "\n</body>\n</html>\n",
    }
    files |= {
        f"{results['experiment']}-{results['variant']}.json": json.dumps(results, indent=1)
        for results in every
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    plots = [each for _, each in parts if isinstance(each, Plot)]
    for plot in plots:
        (folder / plot.name).write_bytes(plot.png)
    return [folder / name for name in (*files, *(plot.name for plot in plots))]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m jaxkd.report.collection")
    parser.add_argument("results", type=pathlib.Path, nargs="+", metavar="RESULTS.json")
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where to write")
    parser.add_argument("--title", default="Several data sets in one table")
    options = parser.parse_args(arguments)
    every: list[dict[str, Any]] = []
    for path in options.results:
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(results, dict) or not isinstance(results.get("models"), dict):
                raise ValueError("it has no object 'models'")
        except OSError as error:
            parser.error(f"{path} cannot be read: {error.strerror}. Give results.json of runs.")
        except ValueError as error:
            parser.error(f"{path} is no results file: {error}. Give results.json of runs.")
        every.append(results)
    by_experiment: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for results in every:
        name = (results.get("experiment"), results.get("variant"))
        by_experiment.setdefault(name, []).append(results)
    try:
        every = [joined(runs) for runs in by_experiment.values()]
    except ValueError as error:
        parser.error(str(error))
    print(*write(every, options.folder, options.title), sep="\n")
    print("\n" + markup.markdown(table(every, options.title)))


if __name__ == "__main__":
    main()
