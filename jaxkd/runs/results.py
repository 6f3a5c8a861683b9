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

from jaxkd.report.joined import with_sizes
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
    rows: Any,
    *,
    name: str,
    variant: str,
    command: str,
) -> dict[str, Any]:
    """The numbers of all seeds, by stage and by model, with the titles and units of the metrics.

    A stage's numbers are what its `run` returned, as its done.json has them. Known keys:
    "models" {model: {"splits": {split: {metric: number}}, ...}}, "metrics" {metric: description}
    (metrics/metric.py), "primary" (a metric's name), "student_errors" {model: {split: ...}},
    "early_exit" (stages/evaluate_exits.py), "search" (stages/search_run.py) and "optimizers"
    (stages/compare_optimizers.py).
    """
    stages: dict[str, Any] = {}
    models: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    exports: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    examples: dict[str, Any] = {}
    early_exit: dict[str, Any] = {}
    search: dict[str, Any] = {}
    optimizers: dict[str, Any] = {}
    primary = ""
    for seed in map(str, experiment.seeds):
        for stage in experiment.stages:
            at = folder / seed / stage
            done = json.loads((at / "done.json").read_text())
            result = done["metrics"]
            entry = stages.setdefault(stage, {"kind": done["stage"], "seconds": {}, "resumed": {}})
            entry["seconds"][seed] = done["seconds"]
            entry["resumed"][seed] = result.get("resumed_at", 0)
            for model, numbers in result.get("models", {}).items():
                # Several stages may have measured a model, each something else.
                collected = models.setdefault(model, {"seeds": {}})
                splits = collected["seeds"].setdefault(seed, {})
                for split, measured in numbers.pop("splits").items():
                    splits[split] = splits.get(split, {}) | measured
                models[model] = with_sizes(collected, numbers)
            metrics |= result.get("metrics", {})
            primary = primary or result.get("primary", "")
            for model, by_split in result.get("student_errors", {}).items():
                examples.setdefault(model, {})[seed] = by_split
            if "early_exit" in result:
                early_exit.setdefault(stage, {})[seed] = result["early_exit"]
            if "search" in result:
                search.setdefault(stage, {})[seed] = result["search"]
            if "optimizers" in result:
                optimizers.setdefault(stage, {})[seed] = result["optimizers"]
            if (at / "metrics.jsonl").exists():
                lines = list(MetricLog(at / "metrics.jsonl").rows())
                curves.setdefault(stage, {})[seed] = lines
            if done["stage"] == "Export":
                exports.setdefault(stage, {})[seed] = result
    return {
        "experiment": name,
        "variant": variant,
        "title": experiment.title,
        "command": command,
        "seeds": list(experiment.seeds),
        "data": None if rows is None else rows.describe(),
        "where": where(),
        "metrics": metrics,
        "primary": primary,
        "terms": terms(experiment),
        "stages": stages,
        "models": models,
        "examples": examples,
        "early_exit": early_exit,
        "search": search,
        "optimizers": optimizers,
        "exports": exports,
        "curves": curves,
        "report": dataclasses.asdict(experiment.report),
    }


def terms(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """By stage the terms of its objective, each with a title and a unit.

    A term says its unit (`unit`); one that compares predictions (`values`) is in nats unless it
    says otherwise, any other has none.
    """
    described: dict[str, dict[str, Any]] = {}
    for name, stage in experiment.stages.items():
        for term_name, term in (getattr(stage, "terms", None) or {}).items():
            own = getattr(term, "term", term)  # of a term that is applied at early exits
            unit = getattr(own, "unit", "nats" if hasattr(own, "values") else "")
            about = {"title": term_name.replace("_", " "), "unit": unit}
            described.setdefault(name, {})[term_name] = about
    return described


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
    installed = {}
    for library in _LIBRARIES:
        try:
            installed[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def revision() -> str:
    """The git commit of the code, with a + if files differ from it; "unknown" outside git.

    Files are those of the whole tree: experiments and configs change a result too. Untracked
    Python files count.
    """
    code = pathlib.Path(__file__).parent

    def git(*words: str, folder: pathlib.Path = code) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # Installed inside another project's tree, this file is not of its commits.
        git("ls-files", "--error-unmatch", pathlib.Path(__file__).name)
        top = pathlib.Path(git("rev-parse", "--show-toplevel"))
        changed = git("status", "--porcelain", "--untracked-files=no", folder=top)
        new = git("ls-files", "--others", "--exclude-standard", "--", "*.py", folder=top)
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed or new else "")
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
