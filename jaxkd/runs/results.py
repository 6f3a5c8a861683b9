"""results.json: everything a report needs, gathered from what the stages left."""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

from jaxkd.data.rows.text import Rows
from jaxkd.runs.experiment import Experiment
from jaxkd.train.log import MetricLog

_LIBRARIES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "transformers",
    "torch",
)


def collect(
    experiment: Experiment,
    folder: pathlib.Path,
    rows: Rows | None,
    *,
    name: str,
    variant: str,
    command: str,
) -> dict[str, Any]:
    """The numbers of all seeds, by stage and by model."""
    stages: dict[str, Any] = {}
    models: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    exports: dict[str, Any] = {}
    for seed in experiment.seeds:
        for stage in experiment.stages:
            at = folder / str(seed) / stage
            done = json.loads((at / "done.json").read_text())
            told = stages.setdefault(stage, {"kind": done["stage"], "seconds": {}, "resumed": {}})
            told["seconds"][str(seed)] = done["seconds"]
            told["resumed"][str(seed)] = done["metrics"].get("resumed_at", 0)
            for model, numbers in done["metrics"].get("models", {}).items():
                # Several stages may have measured a model, each something else.
                told_of = models.setdefault(model, {"seeds": {}})
                splits = told_of["seeds"].setdefault(str(seed), {})
                for split, measured in numbers.pop("splits").items():
                    splits[split] = splits.get(split, {}) | measured
                told_of |= numbers
            if (at / "metrics.jsonl").exists():
                lines = list(MetricLog(at / "metrics.jsonl").rows())
                curves.setdefault(stage, {})[str(seed)] = lines
            if done["stage"] == "Export":
                exports.setdefault(stage, {})[str(seed)] = done["metrics"]
    return {
        "experiment": name,
        "variant": variant,
        "title": experiment.title,
        "command": command,
        "seeds": list(experiment.seeds),
        "data": None if rows is None else rows.describe(),
        "where": where(),
        "stages": stages,
        "models": models,
        "exports": exports,
        "curves": curves,
        "report": dataclasses.asdict(experiment.report),
    }


def where() -> dict[str, Any]:
    """The machine and the software that ran."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "versions": versions(),
        "revision": revision(),
    }


def versions() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def revision() -> str:
    """The git commit of the code, with a + if files differ from it; "unknown" outside git."""
    code = pathlib.Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(code), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "..")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
