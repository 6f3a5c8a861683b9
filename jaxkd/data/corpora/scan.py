"""SCAN: commands and the actions they mean, divided so that the test needs new compositions."""

import pathlib
from collections.abc import Sequence

from jaxkd.core.names import did_you_mean
from jaxkd.data.sources.find import Splits
from jaxkd.data.sources.records import Records, find_file, held_out, text_lines

# Division -> folder, and how its files are named after tasks_train_ and tasks_test_.
DIVISIONS = {
    "simple": ("simple_split", "simple"),
    "length": ("length_split", "length"),
    "jump": ("add_prim_split", "addprim_jump"),
    "turn_left": ("add_prim_split", "addprim_turn_left"),
}
KNOWN = frozenset(
    {
        "941bb8a088c5f53ceff12fde902dc008933cf0c4203cc672c47b5f79d73262dd",
        "b034212dc7cf87ce62f3a067dd6ad49c4d5cd18d51d615d13825516bcb1ebbc2",
        "e3c78485692e028eed4205e1b8b3fd0e785ef2c12d45b5b89204dadf5b239e23",
        "1b3fed86055dd7689d217f1b90cc8960aeb1cf200f4f209dc47935761b05304c",
    }
)

Pair = tuple[str, tuple[str, ...]]


def check(languages: Sequence[str]) -> None:
    """Raise ValueError unless these are a division's commands and its actions."""
    division, target = languages
    if division not in DIVISIONS or target != "actions":
        raise ValueError(
            f"data.languages is {tuple(languages)}: for scan a division, and 'actions'. "
            f"{did_you_mean(division, DIVISIONS)}"
        )


def read_folder(folder: pathlib.Path, languages: tuple[str, str]) -> Splits:
    """A division's files; 5% of the training commands are held out for validation.

    Source: Lake and Baroni (2018), arXiv:1711.00350.
    """
    inside, name = DIVISIONS[languages[0]]

    def records(part: str) -> Records:
        file = find_file(folder, f"{inside}/tasks_{part}_{name}.txt")
        return text_lines(file).map(_pair, f"scan {name}")

    train, validation = held_out(records("train"), key=lambda pair: pair[0])
    return {"train": train, "validation": validation, "test": records("test")}


def _pair(line: str) -> Pair:
    command, separator, actions = line.removeprefix("IN: ").partition(" OUT: ")
    if not separator or not line.startswith("IN: ") or not actions.strip():
        raise ValueError(f"it is {line[:60]!r}; needed is 'IN: command OUT: actions'.")
    return command.strip(), (actions.strip(),)
