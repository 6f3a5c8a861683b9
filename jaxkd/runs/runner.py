"""Run an experiment's stages in order: skip what is done, resume what was cut off, redo others."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console

from jaxkd.data.rows.text import Rows
from jaxkd.report.write import summary, write
from jaxkd.runs import results
from jaxkd.runs.display import Display
from jaxkd.runs.experiment import Experiment, Workspace
from jaxkd.runtime import hosts

FORMAT = 2  # of what stages leave behind; a higher one makes older results be redone


def run(
    experiment: Experiment,
    *,
    name: str,
    variant: str,
    command: str,
    workdir: pathlib.Path,
    cache: pathlib.Path,
    tensorboard: bool = False,
    profile: bool = False,
    stopping: Callable[[], bool] = lambda: False,
) -> pathlib.Path:
    """All stages for all seeds, then results.json and the report; returns their folder.

    Layout: `workdir/<name>-<variant>/<seed>/<stage>/`. What is finished and unchanged (its own
    configuration, its data, its inputs) is not run again.
    """
    experiment.check()
    folder = workdir / f"{name}-{variant}"
    with contextlib.closing(_display(folder)) as display, _alone(folder):
        display.say(f"{experiment.title}\n{folder}")
        rows = None if experiment.data is None else experiment.data.open(cache)
        if rows is not None:
            _announce(rows, display)
        for seed in experiment.seeds:
            prints: dict[str, str] = {}
            for i, (stage_name, stage) in enumerate(experiment.stages.items(), 1):
                prints[stage_name] = _fingerprint(stage, seed, rows, prints)
                workspace = Workspace(
                    stage_name,
                    folder / str(seed) / stage_name,
                    seed,
                    rows,
                    experiment.stages,
                    display,
                    folder / "tensorboard" / str(seed) / stage_name if tensorboard else None,
                    stopping,
                    folder / "profile" / str(seed) / stage_name if profile else None,
                )
                if hosts.agree(stopping()):
                    raise KeyboardInterrupt(f"stopped before {stage_name}; start again to go on")
                title = f"[seed {seed}, {i}/{len(experiment.stages)}] {stage_name}"
                _run_stage(stage, workspace, prints[stage_name], title)
        if not hosts.first():
            return folder
        collected = results.collect(
            experiment, folder, rows, name=name, variant=variant, command=command
        )
        write_json(collected, folder / "results.json")
        write(collected, folder)
        display.say(summary(collected))
        display.say(f"report: {folder / 'report.html'}")
    return folder


def _run_stage(stage: Any, workspace: Workspace, fingerprint: str, title: str) -> None:
    hosts.check_same(fingerprint, f"what stage {workspace.name!r} depends on")
    done = _read(workspace.folder / "done.json")
    hosts.check_same(str(done), f"what {workspace.folder}/done.json says")
    if done is not None and done["fingerprint"] == fingerprint:
        workspace.display.say(f"{title}: done before ({done['seconds']:.0f} s)")
        return
    if not hosts.first():
        return _follow(stage, workspace, fingerprint)
    _make_room(workspace.folder, fingerprint)
    if _read(workspace.folder / "done.json") is not None:
        workspace.display.say(f"{title}: done before, taken back")
        return
    workspace.display.say(f"{title}: {type(stage).__name__}")
    settings = {"stage": type(stage).__name__, "fingerprint": fingerprint}
    write_json(settings | {"settings": dataclasses.asdict(stage)}, workspace.folder / "config.json")
    began = time.monotonic()
    metrics = stage.run(workspace)
    seconds = time.monotonic() - began
    record = {
        "fingerprint": fingerprint,
        "stage": type(stage).__name__,
        "seconds": seconds,
        "metrics": metrics,
        "versions": results.versions(),
        "revision": results.revision(),
    }
    write_json(record, workspace.folder / "done.json")  # last of all: now the stage is finished
    workspace.display.say(f"{title}: {seconds:.0f} s")


def _follow(stage: Any, workspace: Workspace, fingerprint: str) -> None:
    """What a process does that is not the first: trainings with it, and waits for all else.

    Files tell what the first one does, so the hosts share a file system. If it dies, JAX ends the
    others too.
    """

    def of_this(file: str) -> bool:
        found = _read(workspace.folder / file)
        return found is not None and found["fingerprint"] == fingerprint

    def wait_for(file: str) -> None:
        while not of_this(file):
            if workspace.stopping():
                raise KeyboardInterrupt(f"stopped while the first host was at {workspace.name}")
            time.sleep(0.1)

    wait_for("config.json")
    if getattr(stage, "on_all_hosts", False) and not of_this("done.json"):
        stage.run(workspace)
    wait_for("done.json")


def _display(folder: pathlib.Path) -> Display:
    if hosts.first():
        return Display(folder / "log.txt")
    return Display(console=Console(quiet=True))


def _make_room(folder: pathlib.Path, fingerprint: str) -> None:
    """An empty folder, or the unfinished one of this very configuration.

    What another configuration left is put aside in `replaced/`, and taken back when that
    configuration returns: a changed mind costs no training.
    """
    left = _read(folder / "config.json")
    if left is not None and left["fingerprint"] != fingerprint:
        aside = folder.parent / "replaced" / f"{folder.name}-{left['fingerprint']}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        os.replace(folder, aside)
    elif left is None and folder.exists():
        shutil.rmtree(folder)  # cut off before its first line: nothing is in it
    back = folder.parent / "replaced" / f"{folder.name}-{fingerprint}"
    if back.exists() and not folder.exists():
        os.replace(back, folder)
    folder.mkdir(parents=True, exist_ok=True)


def _fingerprint(stage: Any, seed: int, rows: Rows | None, earlier: dict[str, str]) -> str:
    """Changes whenever the stage would give something else."""
    content = {
        "format": FORMAT,
        "kind": type(stage).__name__,
        "settings": dataclasses.asdict(stage),
        **({"depends": stage.depends()} if hasattr(stage, "depends") else {}),
        "seed": seed,
        "data": None if rows is None else rows.fingerprint,
        "inputs": [earlier[name] for name in stage.inputs()],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _announce(rows: Rows, display: Display) -> None:
    told = rows.describe()
    display.say(
        f"data: {rows.corpus} from {rows.origin}; tokenizer: {rows.tokenizer.origin}; "
        f"{told['rows']['train']} training rows of {told['length']} tokens"
    )
    if rows.embedded:
        display.say(
            f"NOT {rows.wanted}: neither a folder nor the hub had it, so this runs on the embedded "
            "prose of the Python documentation. Give --config.data.dir=FOLDER for the real text."
        )


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Refuse to run twice in one folder at once; the lock dies with the process."""
    if not hosts.first():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f"another run is working in {folder}. Wait for it, or choose another --workdir."
            ) from None
        yield


def write_json(content: Any, file: pathlib.Path) -> None:
    """Atomically: a kill leaves the old file or the new one."""
    unfinished = file.with_name(f".{file.name}.tmp")
    with open(unfinished, "w") as stream:
        json.dump(content, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(unfinished, file)


def _read(file: pathlib.Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
