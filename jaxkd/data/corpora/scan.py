"""SCAN: commands and the actions they mean, divided so that a test asks for new compositions."""

import pathlib
from collections.abc import Sequence

from jaxkd.core.names import did_you_mean
from jaxkd.data.sources.records import held_out, text_of

# Division -> folder, and how its files are named after tasks_train_ and tasks_test_.
DIVISIONS = {
    "simple": ("simple_split", "simple"),
    "length": ("length_split", "length"),
    "jump": ("add_prim_split", "addprim_jump"),
    "turn_left": ("add_prim_split", "addprim_turn_left"),
}

Pair = tuple[str, tuple[str, ...]]


def check(languages: Sequence[str]) -> None:
    """Raise ValueError unless these are a division's commands and its actions."""
    given, wanted = languages
    if given not in DIVISIONS or wanted != "actions":
        raise ValueError(
            f"data.languages is {tuple(languages)}: for scan a division, and 'actions'. "
            f"{did_you_mean(given, DIVISIONS)}"
        )


def read_folder(
    folder: pathlib.Path, *, languages: tuple[str, str]
) -> tuple[str, dict[str, list[Pair]]]:
    """A division's files; of the commands to train on 5% are held out for validation.

    Source: Lake and Baroni (2018), arXiv:1711.00350.
    """
    inside, name = DIVISIONS[languages[0]]
    every = {part: _read(folder, f"{inside}/tasks_{part}_{name}.txt") for part in ("train", "test")}
    train, validation = held_out(every["train"], key=lambda pair: pair[0])
    return f"SCAN, {languages[0]}", {
        "train": train,
        "validation": validation,
        "test": every["test"],
    }


def _read(folder: pathlib.Path, name: str) -> list[Pair]:
    text, file = text_of(folder, name)
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        command, there, actions = line.removeprefix("IN: ").partition(" OUT: ")
        if not there or not line.startswith("IN: ") or not actions.strip():
            raise ValueError(
                f"{file}, line {number} is {line[:60]!r}; needed is 'IN: command OUT: actions'."
            )
        found.append((command.strip(), (actions.strip(),)))
    return found
