"""README's table of families is what the code can do."""

import pathlib

from jaxkd.data.corpora.alfred_steps import TaskRows

from jaxkd.data.rows.labelled_rows import LabelledRows
from jaxkd.data.rows.pair_rows import PairRows
from jaxkd.data.rows.text import CausalRows, MaskedRows
from jaxkd.export.torch_encoder import can_export
from jaxkd.hub.folder import HUB
from jaxkd.models import bert, families

ASKED = {rows.head for rows in (MaskedRows, CausalRows, PairRows)}  # what stages have data for
README = pathlib.Path(__file__).parent.parent / "README.md"


def table() -> list[str]:
    lines = []
    for name, (config, _) in families.FAMILIES.items():
        heads = ", ".join(HUB[name].heads) if name in HUB else "– (checkpoints of ours)"
        of_rows = {LabelledRows.head, TaskRows.head}
        asked = ASKED | (of_rows if issubclass(config, bert.Config) else set())
        train = ", ".join(head for head in config.known_heads if head in asked) or "–"
        decode = "yes" if hasattr(config, "cache") else "–"
        heads_of = [head for head in config.known_heads if can_export(config(head=head))]
        onnx = ", ".join(heads_of) or "–"
        lines.append(f"| {name} | {heads} | {train} | {decode} | {onnx} |")
    return lines


def test_every_family_is_in_the_readme():
    text = README.read_text()
    start = text.index("|---|---|---|---|---|\n") + len("|---|---|---|---|---|\n")
    assert text[start : text.index("\n\n", start)].splitlines() == table()


if __name__ == "__main__":
    print("\n".join(table()))
