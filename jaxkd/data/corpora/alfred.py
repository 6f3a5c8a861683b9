"""ALFRED's language: instructions to read, and the plan of the household robot to write."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd.core.names import did_you_mean
from jaxkd.data.sources.records import held_out, records

READ = ("goal", "steps", "both")
WRITE = ("subgoals", "manipulations", "actions")
STEP = " ; "  # between the steps of a plan
MOVES = ("Move", "Rotate", "Look")  # how actions begin that only move the robot

Pair = tuple[str, tuple[str, ...]]


def check(languages: Sequence[str]) -> None:
    """Raise ValueError for sides ALFRED does not have."""
    for side, allowed in zip(languages, (READ, WRITE), strict=True):
        if side not in allowed:
            raise ValueError(f"data.languages has {side!r}. {did_you_mean(side, allowed)}")


def read_folder(folder: pathlib.Path, *, languages: tuple[str, str]) -> tuple[str, dict[str, Any]]:
    """train.jsonl and valid_seen.jsonl; the one is cut by trajectories, the other is the test.

    Plans of ALFRED's own tests are not public.

    Args:
      languages: what is read (goal, steps, both), and what is written: subgoals with their
        objects; after each also its manipulations; or all its actions, moves too, which hang on a
        scene the language does not tell of.
    """
    given, wanted = languages

    def pairs(row: Mapping[str, Any]) -> tuple[str, list[Pair]]:
        target = plan(row, wanted)
        return row["trial"], [(told(each, given), (target,)) for each in row["anns"]]

    train, validation = held_out(
        records(folder, "train.jsonl", pairs), key=lambda trajectory: trajectory[0]
    )
    test = records(folder, "valid_seen.jsonl", pairs)
    content = {"train": train, "validation": validation, "test": test}
    return f"ALFRED, {given} to {wanted}", {
        split: [pair for _, several in rows for pair in several] for split, rows in content.items()
    }


def told(annotation: Mapping[str, Any], given: str) -> str:
    """An annotation as one text.

    >>> told({"task_desc": "Cool it. ", "high_descs": ["Go.", "Open "]}, "both")
    'Cool it. | Go. | Open'
    """
    goal = [annotation["task_desc"]] if given in ("goal", "both") else []
    steps = list(annotation["high_descs"]) if given in ("steps", "both") else []
    return " | ".join(" ".join(text.split()) for text in goal + steps)


def plan(row: Mapping[str, Any], wanted: str) -> str:
    """A trajectory's plan as one text; the NoOp that ends most is left out.

    >>> row = {"high_pddl": [{"action": "PickupObject", "args": ["cup"]}],
    ...        "low_actions": [[0, "MoveAhead_25"], [0, "PickupObject", "Cup|1"]]}
    >>> plan(row, "subgoals"), plan(row, "manipulations")
    ('PickupObject cup', 'PickupObject cup : PickupObject')
    """
    steps = []
    for number, high in enumerate(row["high_pddl"]):
        if high["action"] == "NoOp":
            continue
        words = [high["action"], *high["args"]]
        low = [action[1] for action in row["low_actions"] if action[0] == number]
        if wanted == "manipulations":
            low = [name for name in low if not name.startswith(MOVES)]
        if wanted != "subgoals" and low:
            words += [":", *low]
        steps.append(" ".join(words))
    return STEP.join(steps)
