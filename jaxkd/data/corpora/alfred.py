"""ALFRED's language: instructions are the source, the plan of the household robot is the target."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd.core.names import did_you_mean
from jaxkd.data.sources.find import Splits
from jaxkd.data.sources.records import find_file, held_out, json_lines

READ = ("goal", "steps", "both")
WRITE = ("subgoals", "manipulations", "actions")
STEP = " ; "  # between the steps of a plan
MOVES = ("Move", "Rotate", "Look")  # how actions begin that only move the robot
FILES = "train.jsonl and valid_seen.jsonl (or with .gz)"
KNOWN = frozenset({"d82cccf0c0bde43fa00877d70839c53ce3d1fc6cf344b994bfcd80f5b20ba69c"})

Pair = tuple[str, tuple[str, ...]]


def check(languages: Sequence[str]) -> None:
    """Raise ValueError for sides ALFRED does not have."""
    for side, allowed in zip(languages, (READ, WRITE), strict=True):
        if side not in allowed:
            raise ValueError(f"data.languages has {side!r}. {did_you_mean(side, allowed)}")


def trajectories(folder: pathlib.Path) -> Splits:
    """Rows of train.jsonl, 5% of them held out, and of valid_seen.jsonl, the test split.

    Plans of ALFRED's own tests are not public.
    """
    train, validation = held_out(
        json_lines(find_file(folder, "train.jsonl")), key=lambda row: row["trial"]
    )
    test = json_lines(find_file(folder, "valid_seen.jsonl"))
    return {"train": train, "validation": validation, "test": test}


def read_folder(folder: pathlib.Path, languages: tuple[str, str]) -> Splits:
    """Pairs of an instruction and a plan, one for each annotation.

    Args:
      languages: the source (goal, steps, both), and the target: subgoals with their objects; after
        each also its manipulations; or all its actions, moves too, which depend on a scene that
        the language does not describe.
    """
    source, target = languages

    def pairs(row: Mapping[str, Any]) -> list[Pair]:
        written = plan(row, target)
        return [(instruction(each, source), (written,)) for each in row["anns"]]

    return {
        split: rows.flat_map(pairs, f"alfred {source} {target}")
        for split, rows in trajectories(folder).items()
    }


def instruction(annotation: Mapping[str, Any], source: str) -> str:
    """An annotation as one text.

    >>> instruction({"task_desc": "Cool it. ", "high_descs": ["Go.", "Open "]}, "both")
    'Cool it. | Go. | Open'
    """
    goal = [annotation["task_desc"]] if source in ("goal", "both") else []
    steps = list(annotation["high_descs"]) if source in ("steps", "both") else []
    return " | ".join(" ".join(text.split()) for text in goal + steps)


def plan(row: Mapping[str, Any], target: str) -> str:
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
        if target == "manipulations":
            low = [name for name in low if not name.startswith(MOVES)]
        if target != "subgoals" and low:
            words += [":", *low]
        steps.append(" ".join(words))
    return STEP.join(steps)
