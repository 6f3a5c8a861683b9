"""Results of stages that ran inside stages, and notes of stages, added to results.json."""

import pathlib
from collections.abc import Iterator
from typing import Any

from jaxkd.runs.experiment import Experiment
from jaxkd.runs.folders import read_record
from jaxkd.train.log import MetricLog


def add_sub_runs(collected: dict[str, Any], experiment: Experiment, folder: pathlib.Path) -> None:
    """Add to `collected` what sub-runs left, under "stage/sub-run", and the notes of all stages.

    A model measured in a sub-run is named "stage/model".
    """
    for seed in map(str, experiment.seeds):
        for stage in experiment.stages:
            for name, at, record in _walk(stage, folder / seed / stage):
                if "note" in record["metrics"] and name in collected["stages"]:
                    notes = collected["stages"][name].setdefault("note", {})
                    notes[seed] = record["metrics"]["note"]
                if name != stage:
                    _add(collected, name, seed, at, record)


def _walk(name: str, folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path, dict[str, Any]]]:
    record = read_record(folder / "done.json")
    if record is None:
        return
    yield name, folder, record
    for inner in record.get("runs", []):
        yield from _walk(f"{name}/{inner}", folder / inner)


def _add(
    collected: dict[str, Any], name: str, seed: str, folder: pathlib.Path, record: dict[str, Any]
) -> None:
    stage = collected["stages"].setdefault(
        name, {"kind": record["stage"], "seconds": {}, "resumed": {}}
    )
    metrics = record["metrics"]
    stage["seconds"][seed] = record["seconds"]
    stage["resumed"][seed] = metrics.get("resumed_at", 0)
    if "note" in metrics:
        stage.setdefault("note", {})[seed] = metrics["note"]
    outer = name.rpartition("/")[0]
    for model, numbers in metrics.get("models", {}).items():
        entry = collected["models"].setdefault(f"{outer}/{model}", {"seeds": {}})
        splits = entry["seeds"].setdefault(seed, {})
        for split, measured in numbers.get("splits", {}).items():
            splits[split] = splits.get(split, {}) | measured
        entry |= {key: value for key, value in numbers.items() if key != "splits"}
        if entry.get("teacher"):
            inner = f"{outer}/{entry['teacher']}"
            entry["teacher"] = inner if inner in collected["models"] else entry["teacher"]
    if (folder / "metrics.jsonl").exists():
        lines = list(MetricLog(folder / "metrics.jsonl").rows())
        collected["curves"].setdefault(name, {})[seed] = lines
    if record["stage"] == "Export":
        collected["exports"].setdefault(name, {})[seed] = metrics
