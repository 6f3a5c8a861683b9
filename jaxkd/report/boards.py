"""One table of what boards measured: `python -m jaxkd.report.boards FILES`.

    python3 run_device.py --bench --seconds 20 --file texts.tsv > my_board.json   # on the board
    python -m jaxkd.report.boards docs/boards/*.json                              # where jaxkd is

Prints a Markdown table, a row for each file.
"""

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd.report.markup import Table, markdown
from jaxkd.report.spread import ABSENT, number

NEEDED = ("machine", "model", "weights", "rule", "milliseconds", "mean_blocks", "memory", "energy")


def read(file: pathlib.Path) -> dict[str, Any]:
    """What --bench printed into that file.

    Raises:
      ValueError: if it is something else.
    """
    try:
        measured = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}.") from error
    lacking = [name for name in NEEDED if not isinstance(measured, dict) or name not in measured]
    if lacking:
        raise ValueError(
            f"{file} lacks {', '.join(lacking)}: it is not what `run_device.py --bench` of this "
            "version prints for a bundle of a model (a divided ONNX file has no row)."
        )
    return measured


def table(every: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each measurement: model, machine, time, memory, energy, score."""
    rows = sorted(_row(each) for each in every)
    header = (
        "model", "weights", "machine", "onnxruntime", "rule", "blocks a text", "ms p50", "ms p99",
        "peak MB", "mJ a text", "score",
    )  # fmt: skip
    caption = (
        "Milliseconds of one text at a time. Peak: of the process, files that it mapped included. "
        "Energy: of the sensor, idle power included. Score: measured by jaxkd when the bundle was "
        "written, of all blocks."
    )
    return Table(header, tuple(rows), caption)


def _row(measured: Mapping[str, Any]) -> tuple[str, ...]:
    model, machine, energy = (measured[name] for name in ("model", "machine", "energy"))
    score, bits = measured.get("measured"), measured.get("bits")
    power = machine.get("power_mode")
    joules, peak = energy.get("joules"), measured["memory"].get("peak")
    return (
        f"{model['family']}, {model['head'].replace('_', ' ')}, {model['layers']} x "
        f"{model['width']}",
        measured["weights"] + (f", {bits} bits" if bits else ""),
        f"{machine['machine'] or machine['system']}, {machine['cores']} cores"
        + (f", {power}" if power else ""),
        machine["onnxruntime"],
        measured["rule"],
        number(measured["mean_blocks"]),
        number(measured["milliseconds"]["p50"]),
        number(measured["milliseconds"]["p99"]),
        ABSENT if peak is None else number(peak / 1e6),
        ABSENT if joules is None else number(1000 * joules),
        ABSENT
        if not score or "score" not in score
        else f"{number(score['score'])} {score['metric']}, {score['rows']:,} rows",
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m jaxkd.report.boards", description=__doc__)
    parser.add_argument("files", nargs="+", type=pathlib.Path, metavar="BENCH.json")
    args = parser.parse_args(argv)
    try:
        every = [read(file) for file in args.files]
    except ValueError as error:
        parser.error(str(error))
    print(markdown(table(every)), end="")


if __name__ == "__main__":
    main()
