"""What a report is made of: sections of paragraphs, tables and plots; how tables are rendered."""

import dataclasses
import html as escaping
import re
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as they are read; the renderers escape them."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers only (and absent ones), so that it is set right."""
        cells = [row[column] for row in self.rows]
        return column > 0 and all(
            re.match(r"[+-]?\d[^A-Za-z]*(\(n = \d+\))?$|–?$", c) for c in cells
        )


@dataclasses.dataclass(frozen=True)
class Plot:
    name: str  # the file's
    alt: str
    png: bytes


@dataclasses.dataclass(frozen=True)
class Section:
    heading: str
    parts: tuple["str | Table | Plot", ...]  # a str is a paragraph


def escape_markdown(text: str) -> str:
    """One line in which nothing is markup.

    >>> escape_markdown("a|b <i> x_1 _x_")
    'a\\\\|b \\\\<i\\\\> x_1 \\\\_x\\\\_'
    """
    text = re.sub(r"([\\`*<>|~&$]|\](?=[(\[:]))", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def markdown(table: Table) -> str:
    """A GitHub table with its caption under it."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    rule = ("---:" if table.numeric(column) else "---" for column in range(len(table.header)))
    lines = [line(map(escape_markdown, table.header)), line(rule)]
    lines += [line(map(escape_markdown, row)) for row in table.rows]
    return "\n".join(lines) + f"\n\n*{escape_markdown(table.caption)}*\n"


def html(table: Table) -> str:
    """The same as an HTML table; columns of numbers have the class "number"."""
    kinds = [' class="number"' if table.numeric(i) else "" for i in range(len(table.header))]
    head = "".join(
        f'<th scope="col"{kind}>{escaping.escape(cell)}</th>'
        for kind, cell in zip(kinds, table.header, strict=True)
    )
    body = ""
    for first, *rest in table.rows:
        cells = "".join(
            f"<td{kind}>{escaping.escape(cell)}</td>"
            for kind, cell in zip(kinds[1:], rest, strict=True)
        )
        body += f'<tr><th scope="row">{escaping.escape(first)}</th>{cells}</tr>\n'
    return (
        f'<div class="wide"><table>\n<caption>{escaping.escape(table.caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )
