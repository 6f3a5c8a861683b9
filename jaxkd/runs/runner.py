"""Run an experiment's stages in order: skip what is done, resume what was cut off, redo others."""

import contextlib
import dataclasses
import fcntl
import pathlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console

from jaxkd.checkpoint.series import check_disk
from jaxkd.data.rows.base import Rows
from jaxkd.report.write import summary_table, write
from jaxkd.runs import results
from jaxkd.runs.display import Display
from jaxkd.runs.experiment import Experiment, Workspace, check_stage
from jaxkd.runs.fingerprint import fingerprint_of
from jaxkd.runs.folders import (
    REPLACED,
    finished,
    newest_checkpoint,
    prepare,
    read_record,
    write_json,
)
from jaxkd.runs.needs import Needs, check_memory, needs
from jaxkd.runs.outline import outline
from jaxkd.runs.plan import Configs, check_one, check_plan, planned
from jaxkd.runs.sub_runs import add_sub_runs
from jaxkd.runtime import hosts, memory
from jaxkd.tasks.task import task_for
from jaxkd.train.log import last_of_splits

# Names that stages use in their folders.
RESERVED = (
    REPLACED,
    "checkpoint",
    "best",
    "tokenizer",
    "store",
    "huggingface",
    "onnx",
    "onnx_int8",
)


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
    experiment.resolve()
    experiment.check()
    folder = workdir / f"{name}-{variant}"
    with contextlib.closing(_display(folder)) as display, _alone(folder):
        display.say(f"{experiment.title}\n{folder}")
        rows = None if experiment.data is None else experiment.data.open(cache)
        if rows is not None:
            _announce(rows, display, experiment.data)
        display.table(outline(experiment, rows))
        task = experiment.task or (None if rows is None else task_for(rows))
        for seed in experiment.seeds:
            fingerprints: dict[str, str] = {}
            for stage_name, stage in experiment.stages.items():
                fingerprints[stage_name] = fingerprint_of(
                    stage, seed, rows, fingerprints, experiment.task
                )
            plan = (experiment.stages, rows, folder / str(seed), fingerprints)
            configs = check_plan(*plan)
            inner = _Inner(experiment, fingerprints)
            for i, (stage_name, stage) in enumerate(experiment.stages.items(), 1):
                workspace = Workspace(
                    stage_name,
                    folder / str(seed) / stage_name,
                    seed,
                    rows,
                    dict(experiment.stages),
                    display,
                    folder / "tensorboard" / str(seed) / stage_name if tensorboard else None,
                    stopping,
                    folder / "profile" / str(seed) / stage_name if profile else None,
                    task=task,
                    run_inside=inner.run,
                )
                if hosts.agree(stopping()):
                    raise KeyboardInterrupt(f"stopped before {stage_name}; start again to go on")
                title = f"[seed {seed}, {i}/{len(experiment.stages)}] {stage_name}"
                run_stage(stage, workspace, fingerprints[stage_name], title)
                if configs[stage_name] is None and hasattr(stage, "plan"):
                    configs = check_plan(*plan)  # a hub id's model is known now
        if not hosts.first():
            return folder
        collected = results.collect(
            experiment, folder, rows, name=name, variant=variant, command=command
        )
        add_sub_runs(collected, experiment, folder)
        write_json(collected, folder / "results.json")
        write(collected, folder)
        display.table(summary_table(collected))
        display.say(f"report: {folder / 'report.html'}")
    return folder


def plan(
    experiment: Experiment,
    *,
    name: str,
    variant: str,
    workdir: pathlib.Path,
    cache: pathlib.Path,
    display: Display | None = None,
) -> Needs:
    """What `run` would do and need, measured on this machine; writes nothing in `workdir`.

    Raises:
      ValueError: if a stage needs more memory than there is.
      OSError: if the checkpoints need more disk than there is.
    """
    experiment.resolve()
    experiment.check()
    free = memory.available()  # before measuring takes some, which glibc may keep
    if display is None:
        display = Display() if hosts.first() else Display(console=Console(quiet=True))
    folder = workdir / f"{name}-{variant}"
    display.say(f"{experiment.title}\n{folder}")
    rows = None if experiment.data is None else experiment.data.open(cache)
    if rows is not None:
        _announce(rows, display, experiment.data)
    task = experiment.task or (None if rows is None else task_for(rows))
    configs, runs = {}, dict.fromkeys(experiment.stages, 0)
    for seed in reversed(experiment.seeds):
        fingerprints: dict[str, str] = {}
        for stage_name, stage in experiment.stages.items():
            fingerprints[stage_name] = fingerprint_of(
                stage, seed, rows, fingerprints, experiment.task
            )
        stages = folder / str(seed)
        configs = check_plan(experiment.stages, rows, stages, fingerprints)
        for each in runs:
            runs[each] += finished(stages / each, fingerprints[each]) is None
    measured = needs(experiment.stages, configs, rows, task, experiment.seeds[0], runs, free)
    display.table(measured.table)
    check_memory(measured.memory, free)
    check_disk(workdir, measured.disk)
    return measured


def run_stage(stage: Any, workspace: Workspace, fingerprint: str, title: str) -> dict[str, Any]:
    """Run one stage in `workspace.folder` unless it is finished; returns its numbers.

    Its folder has config.json while it runs and done.json once it is finished.
    """
    say = workspace.display.say
    hosts.check_same(fingerprint, f"what stage {workspace.name!r} depends on")
    record = read_record(workspace.folder / "done.json")
    hosts.check_same(str(record), f"what {workspace.folder}/done.json says")
    record = finished(workspace.folder, fingerprint)
    if record is not None:
        say(f"{title}: done before ({record['seconds']:.0f} s)")
        return record["metrics"]
    if not hosts.first():
        return _take_part(stage, workspace, fingerprint)
    prepare(workspace.folder, fingerprint, say)
    record = finished(workspace.folder, fingerprint)
    if record is not None:
        say(f"{title}: done before, moved back from {REPLACED}/")
        return record["metrics"]
    say(f"{title}: {type(stage).__name__}")
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
        "checkpoint": newest_checkpoint(workspace.folder),
        "runs": [name for name in workspace.folders if name in _inside(workspace)],
        "versions": results.versions(),
        "revision": results.revision(),
    }
    write_json(record, workspace.folder / "done.json")  # last of all: now the stage is finished
    last = last_of_splits(workspace.folder / "metrics.jsonl")
    workspace.display.finished(title, seconds, metrics, last)
    return metrics


def _inside(workspace: Workspace) -> set[str]:
    """Names of the stages that a stage ran inside itself."""
    folders = workspace.folders.items()
    return {name for name, folder in folders if folder.parent == workspace.folder}


@dataclasses.dataclass
class _Inner:
    """Runs stages inside stages, of one seed."""

    experiment: Experiment
    fingerprints: dict[str, str]  # of the experiment's stages
    # Fingerprints and planned models of sub-runs, by their folder.
    ran: dict[pathlib.Path, str] = dataclasses.field(default_factory=dict)
    configs: dict[pathlib.Path, Any] = dataclasses.field(default_factory=dict)

    def run(self, outer: Workspace, name: str, stage: Any) -> dict[str, Any]:
        """`Workspace.run`."""
        if hosts.several() and not getattr(outer.stages[outer.name], "on_all_hosts", False):
            raise ValueError(
                f"stage {outer.name!r} runs {name!r} inside it on several hosts: it needs "
                "on_all_hosts = True."
            )
        if not re.fullmatch(r"[\w][\w.-]*", name) or name in RESERVED or name == outer.name:
            raise ValueError(
                f"stage {outer.name!r} runs {name!r} inside it: a name has letters, digits, '_', "
                f"'.' and '-', and is none of {', '.join(RESERVED)}."
            )
        folder = outer.folder / name
        declared = outer.stages[outer.name].inputs()
        inside = _inside(outer)
        readable = {n: outer.stages[n] for n in (*declared, *outer.folders) if n in outer.stages}
        if name in outer.stages and name not in inside:
            raise ValueError(
                f"stage {outer.name!r} runs {name!r} inside it: a stage of the experiment has that "
                "name already."
            )
        readable.pop(name, None)
        for source in stage.inputs():
            if source in outer.stages and source not in readable:
                raise ValueError(
                    f"stage {name!r}, run inside {outer.name!r}, reads {source!r}: add it to the "
                    f"inputs() of {outer.name!r}, so that a change of it is noticed."
                )
        check_stage(name, stage, readable, self.experiment.data)
        earlier = {n: self._fingerprint(outer, n) for n in readable}
        fingerprint = fingerprint_of(stage, outer.seed, outer.rows, earlier, self.experiment.task)
        if self.ran.get(folder, fingerprint) != fingerprint:
            raise ValueError(
                f"stage {outer.name!r} ran {name!r} inside it before with another configuration: "
                "give each its own name."
            )
        workspace = Workspace(
            name,
            folder,
            outer.seed,
            outer.rows,
            {n: outer.stages[n] for n in outer.stages} | {name: stage},
            outer.display,
            outer.tensorboard and outer.tensorboard / name,
            outer.stopping,
            outer.profile and outer.profile / name,
            task=outer.task,
            folders={n: outer.stage_folder(n) for n in readable},
            run_inside=self.run,
        )
        configs: Configs = {n: self._config(outer, n) for n in readable}
        if finished(folder, fingerprint) is None:
            check_one(name, stage, configs, outer.rows)
        self.configs[folder] = planned(stage, configs, outer.rows, folder, fingerprint)
        if outer.stopping() and not hosts.several():
            raise KeyboardInterrupt(f"stopped before {outer.name}/{name}; start again to go on")
        title = f"{outer.folder.name}/{name}"
        metrics = run_stage(stage, workspace, fingerprint, title)
        self.configs[folder] = planned(stage, configs, outer.rows, folder, fingerprint)
        self.ran[folder] = fingerprint
        outer.stages[name] = stage
        outer.folders[name] = folder
        return metrics

    def _fingerprint(self, outer: Workspace, name: str) -> str:
        return self.ran.get(outer.stage_folder(name)) or self.fingerprints[name]

    def _config(self, outer: Workspace, name: str) -> Any:
        folder = outer.stage_folder(name)
        if folder in self.configs:
            return self.configs[folder]
        return planned(outer.stages[name], {}, outer.rows, folder, self._fingerprint(outer, name))


def _take_part(stage: Any, workspace: Workspace, fingerprint: str) -> dict[str, Any]:
    """What every process but the first does: takes part in trainings, and waits for all else.

    Files say what the first one does, so the hosts share a file system. If it dies, JAX ends the
    others too.
    """

    def exists(file: str) -> bool:
        record = read_record(workspace.folder / file)
        return record is not None and record["fingerprint"] == fingerprint

    def wait_for(file: str) -> None:
        while not exists(file):
            if workspace.stopping():
                raise KeyboardInterrupt(f"stopped while the first host was at {workspace.name}")
            time.sleep(0.1)

    wait_for("config.json")
    if getattr(stage, "on_all_hosts", False) and not exists("done.json"):
        stage.run(workspace)
    wait_for("done.json")
    return read_record(workspace.folder / "done.json")["metrics"]


def _display(folder: pathlib.Path) -> Display:
    if hosts.first():
        return Display(folder / "log.txt")
    return Display(console=Console(quiet=True))


def _announce(rows: Rows, display: Display, data: Any) -> None:
    description = rows.describe()
    display.say(
        f"data: {rows.corpus} from {rows.origin}; tokenizer: {rows.tokenizer.origin}; "
        f"{description['rows']['train']} training rows of {description['length']} tokens"
    )
    if rows.embedded:
        # Where it was chosen, nothing else was looked for, and there is nothing to give.
        chosen = getattr(data, "origin", "") == "embedded"
        display.say(
            f"NOT {rows.dataset.expected}: this runs on a stand-in, {rows.corpus}"
            + ("." if chosen else ". Give --config.data.dir=FOLDER for the real text.")
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
