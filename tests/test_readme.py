"""README's table of families is what the code can do."""

import pathlib

from jaxkd.hub.folder import HUB
from jaxkd.models import bert, decoder

README = pathlib.Path(__file__).parent.parent / "README.md"


def table() -> list[str]:
    lines = []
    for name, family in HUB.items():
        train = "masked_lm" if "masked_lm" in family.heads else "–"
        decode = "yes" if issubclass(family.config, decoder.Config) else "–"
        onnx = "masked_lm" if family.config is bert.Config else "–"
        lines.append(f"| {name} | {', '.join(family.heads)} | {train} | {decode} | {onnx} |")
    return lines


def test_every_family_is_in_the_readme():
    text = README.read_text()
    start = text.index("|---|---|---|---|---|\n") + len("|---|---|---|---|---|\n")
    assert text[start : text.index("\n\n", start)].splitlines() == table()


if __name__ == "__main__":
    print("\n".join(table()))
