"""README's table of families is what the code can do."""

import pathlib

from jaxkd.data.rows.alfred_steps import StepRows
from jaxkd.data.rows.labelled_rows import LabelledRows
from jaxkd.data.rows.pair_rows import PairRows
from jaxkd.data.rows.text import CausalRows, MaskedRows
from jaxkd.export.emit.whole import can_export
from jaxkd.hub.folder import HUB
from jaxkd.models import families

README = pathlib.Path(__file__).parent.parent / "README.md"
GENERAL = {rows.head for rows in (MaskedRows, CausalRows, PairRows)}
OF_ENCODERS = {rows.head for rows in (LabelledRows, StepRows)}  # decoders are not fine-tuned so


def table() -> list[str]:
    """The rows of README's table; run this file to print them."""
    lines = []
    for name, (config, _) in families.FAMILIES.items():
        heads = ", ".join(HUB[name].heads) if name in HUB else "– (checkpoints of ours)"
        trained = GENERAL | (OF_ENCODERS if "masked_lm" in config.known_heads else set())
        train = ", ".join(head for head in config.known_heads if head in trained) or "–"
        decode = "yes" if hasattr(config, "cache") else "–"
        exported = [head for head in config.known_heads if can_export(config(head=head))]
        onnx = ", ".join(exported) or "–"
        lines.append(f"| {name} | {heads} | {train} | {decode} | {onnx} |")
    return lines


def test_every_family_is_in_the_readme():
    text = README.read_text()
    start = text.index("|---|---|---|---|---|\n") + len("|---|---|---|---|---|\n")
    assert text[start : text.index("\n\n", start)].splitlines() == table()


if __name__ == "__main__":
    print("\n".join(table()))
