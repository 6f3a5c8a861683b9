"""Renders a results file again: `python -m jaxkd.report RESULTS.json [FOLDER]`."""

import argparse
import json
import pathlib
from collections.abc import Sequence

from jaxkd.report.write import summary, write


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m jaxkd.report", description=__doc__)
    parser.add_argument("results", type=pathlib.Path, metavar="RESULTS.json")
    parser.add_argument(
        "folder",
        type=pathlib.Path,
        nargs="?",
        help="where to write; default: the folder of the results",
    )
    options = parser.parse_args(arguments)
    path = options.results
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        parser.error(f"{path} cannot be read: {error.strerror}. Give the results.json of a run.")
    except ValueError as error:  # not UTF-8, or not JSON
        parser.error(f"{path} is not JSON: {error}. Give the results.json of a run.")
    if not isinstance(results, dict) or not isinstance(results.get("models"), dict):
        content = sorted(results) if isinstance(results, dict) else type(results).__name__
        parser.error(f"{path} is no results file: no object 'models' in it, but {content}.")
    try:
        written = write(results, options.folder or path.parent)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(summary(results))
    print(*written, sep="\n")


if __name__ == "__main__":
    main()
