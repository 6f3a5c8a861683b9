"""Labels or texts of a HuggingFace folder's model, for texts on the command line or in a file.

    python -m jaxkd.predict FOLDER --text "a good film"
    python -m jaxkd.predict FOLDER --file reviews.txt          # a text a line; pairs: two columns
    python -m jaxkd.predict FOLDER --text "ein Haus" --beam 4  # a model that writes

A classifier prints its labels with their probabilities, a regression its number, a model that
translates or continues what it writes. Columns of the output are separated by tabs.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from jaxkd.export.texts import CLASSIFIES, TextModel, open_text_model


def predict(
    model: TextModel, texts: Sequence[Sequence[str]], *, beam: int = 1, max_tokens: int = 64
) -> list[str]:
    """A line for each row of one text, or of two for a classifier of pairs.

    Raises:
      ValueError: for rows of unlike or of more columns, pairs for a model that writes, or a head
        that neither classifies nor writes.
    """
    columns = {len(row) for row in texts}
    if columns - {1, 2} or len(columns) > 1:
        raise ValueError(f"rows have {sorted(columns)} columns; needed is one text each, or two.")
    first = [row[0] for row in texts]
    if model.config.head != CLASSIFIES:
        if columns == {2}:
            raise ValueError(f"a {model.config.family} that writes takes one text a row, not two.")
        return model.write(first, beam=beam, max_tokens=max_tokens)
    second = [row[1] for row in texts] if columns == {2} else None
    return [_line(answer) for answer in model.classify(first, second)]


def _line(answer: dict[str, float]) -> str:
    if len(answer) == 1:
        return f"{next(iter(answer.values())):.4f}"
    ranked = sorted(answer.items(), key=lambda entry: -entry[1])
    return "\t".join(f"{label} {score:.4f}" for label, score in ranked)


def read_rows(file: pathlib.Path) -> list[list[str]]:
    """The lines of a UTF-8 file, each cut at its tabs.

    Raises:
      FileNotFoundError, ValueError: names the file, and the line that is empty or ragged.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8: {error}.") from error
    rows = [line.removesuffix("\r").split("\t") for line in lines]
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]) or not all(text.strip() for text in row):
            raise ValueError(
                f"{file}, line {number}: {len(row)} columns, of which "
                f"{sum(not text.strip() for text in row)} are empty; line 1 has {len(rows[0])}."
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m jaxkd.predict", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", help="a HuggingFace folder, or a hub id")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", action="append", help="a text; may be given several times")
    source.add_argument("--file", type=pathlib.Path, help="a text a line; two for pairs, by a tab")
    parser.add_argument("--pair", action="append", help="the second text of each --text")
    parser.add_argument("--beam", type=int, default=1, help="beams of a model that writes (1)")
    parser.add_argument("--max_tokens", type=int, default=64, help="tokens it writes at most (64)")
    options = parser.parse_args(arguments)
    try:
        if options.pair and len(options.pair) != len(options.text or ()):
            raise ValueError(f"{len(options.text or ())} --text and {len(options.pair)} --pair.")
        rows = read_rows(options.file) if options.file else [[text] for text in options.text]
        if options.pair:
            rows = [[*row, second] for row, second in zip(rows, options.pair, strict=True)]
        model = open_text_model(options.folder, lambda message: print(message, file=sys.stderr))
        for line in predict(model, rows, beam=options.beam, max_tokens=options.max_tokens):
            print(line)
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
