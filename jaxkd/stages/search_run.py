"""One process's part of a search: claim, measure, report, until there are enough candidates."""

import dataclasses
import json
import math
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxkd.core.random import numpy_stream
from jaxkd.core.tree import filled
from jaxkd.models import families
from jaxkd.runs.experiment import Workspace
from jaxkd.runs.folders import write_json
from jaxkd.runtime.compilations import compilations
from jaxkd.search.candidates import IMPORTANCE_BATCHES, ShortDistillation, Starts
from jaxkd.search.controller import Controller
from jaxkd.search.latency import Table, Timed, fitted, in_turns
from jaxkd.search.optimisers import Evolution, Optimiser, Outcome, Random
from jaxkd.search.reward import Measured, Reward, pareto_front
from jaxkd.search.sampled import Sampled
from jaxkd.search.space import ORDER, Candidate
from jaxkd.search.study import Record, Study
from jaxkd.search.teacher_states import TeacherStates, layers_of, share_of
from jaxkd.stages import tokenizer
from jaxkd.stages.models import save_model

OPTIMIZERS = {
    "random": Random,
    "evolution": Evolution,
    "tpe": lambda space, seed: Sampled(space, seed, "tpe"),
    "nsga2": lambda space, seed: Sampled(space, seed, "nsga2"),
    "controller": Controller,
}
POLL = 2.0  # seconds between two looks at what other processes still measure
DROPOUT = ("dropout", "attention_dropout", "activation_dropout")
# What a candidate may die of while the search goes on.
FAILURES = (FloatingPointError, MemoryError, jax.errors.JaxRuntimeError)


class Run:
    """One process's part of a search."""

    def __init__(self, stage: Any, workspace: Workspace, config: Any, params: Any):
        self.stage, self.workspace, self.original = stage, workspace, config
        # Dropout would blur what short trainings are compared by.
        self.config = dataclasses.replace(config, **dict.fromkeys(DROPOUT, 0.0))
        self.began = (time.perf_counter(), compilations()[0])
        self.say = workspace.display.say
        self.teacher_timed: Timed = stage.latency.timed(config, params)
        self.table = self._table() if stage.latency.fitted_on else None
        self.space = stage.space(self.config, self.table)
        rows = share_of(workspace.rows, stage.share)
        depths = self.space.values.get("layers", (config.layers,))
        self.data = TeacherStates(
            workspace.folder / "teacher_states",
            _fingerprint(workspace),
            self.config,
            params,
            rows,
            layers=layers_of(stage.terms, depths, config.layers),
            seed=workspace.seed,
            batch_size=stage.batch_size,
            validation_rows=stage.validation_rows,
            most_megabytes=stage.store_megabytes,
            stopping=workspace.stopping,
        )
        steps = max(1, round(stage.epochs * self.data.steps))
        self.starts = Starts(
            stage.start,
            self.config,
            params,
            self.data.without_states(IMPORTANCE_BATCHES),
            workspace.seed,
        )
        self.train = ShortDistillation(
            self.data, stage.terms, stage.optimiser, steps, workspace.seed,
            _rungs(steps, stage.first_rung, stage.halving), stage.freeze, stage.parallel,
        )  # fmt: skip
        self.study = Study(
            self.space,
            stage.storage or str(workspace.folder / "study.journal"),
            f"{workspace.name}-{_fingerprint(workspace)}",
            f"{socket.gethostname()}:{workspace.folder.resolve()}",
            min(stage.candidates, self.space.count(stage.candidates)),
            60 * stage.patience,
        )
        self.optimizer: Optimiser = OPTIMIZERS[stage.optimizer](self.space, workspace.seed)
        self.observed: set[int] = set()
        self.by_hand = self.space.with_fewer_layers() if stage.hand_chosen else []

    def all(self) -> dict[str, Any]:
        """Measure candidates until there are enough; returns the numbers of the stage."""
        self.workspace.display.start(self.workspace.name, self.study.most, len(self._finished()))
        while True:
            if self.workspace.stopping():
                raise KeyboardInterrupt("stopped between candidates; start again to go on")
            for record in self._finished():
                if record.number not in self.observed:
                    self.observed.add(record.number)
                    self.optimizer.observe(record.candidate, _outcome(record))
            interrupted = self.study.interrupted()
            if interrupted:
                self._measure(self.study.resume(interrupted[0]))
                continue
            record = self.study.claim(self._suggest)
            if record is not None:
                self._measure(record)
            elif any(each.state == "running" for each in self.study.records()):
                time.sleep(POLL)  # of other processes
            else:
                break
        self.workspace.display.stop()
        return self._result()

    def _suggest(self, number: int, taken: Sequence[str]) -> Candidate:
        """First what one would choose by hand: the teacher's shape with fewer blocks."""
        for candidate in self.by_hand:
            if self.space.key(candidate) not in taken:
                return candidate
        return self.optimizer.suggest(number, taken)

    def _finished(self) -> list[Record]:
        return [record for record in self.study.records() if record.state != "running"]

    def _measure(self, record: Record | None) -> None:
        if record is None:
            return
        began = time.perf_counter()
        try:
            measured, stopped = self._measured(record)
        except FAILURES as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            self.study.fail(record, reason)
            self.say(f"{self.workspace.name}: {record.key} failed: {reason}")
            return
        reward = self._reward(measured["loss"], measured)
        measured["seconds"] = time.perf_counter() - began
        self.study.finish(record, reward, measured, stopped)
        done = self._finished()
        best = max((r.measured["reward"] for r in done if r.state == "complete"), default=math.nan)
        self.workspace.display.step(
            len(done), {"reward": reward, "best": best, "loss": measured["loss"]}
        )

    def _measured(self, record: Record) -> tuple[dict[str, Any], bool]:
        config, params = self.starts.of(record.candidate)
        measured = self._milliseconds(config, params)
        measured["parameters"] = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))

        def go_on(step: int, loss: float) -> bool:
            self.study.report(record, step, loss)
            # What earlier candidates had there: later ones of other processes change nothing.
            others = [
                self._reward(other.rungs[step], other.measured)
                for other in self.study.records()
                if other.number < record.number and step in other.rungs and other.measured
            ]
            ahead = sum(other > self._reward(loss, measured) for other in others)
            return ahead < max(1, math.ceil((len(others) + 1) / self.stage.halving))

        trained = self.train(config, params, go_on, self.workspace.stopping)
        measured |= {
            "loss": trained.loss,
            "steps": trained.steps,
            "train_seconds": trained.seconds,
            "compilations": trained.compilations,
        }
        return measured, trained.stopped

    def _milliseconds(self, config: families.Config, params: Any) -> dict[str, Any]:
        if self.table is not None:
            return {
                "milliseconds": self.table(config),
                "teacher_milliseconds": self.table(self.config),
            }
        timed = self.stage.latency.timed(config, params)
        own, teacher = in_turns([timed, self.teacher_timed], self.stage.latency.rounds)
        return {"milliseconds": own, "teacher_milliseconds": teacher}

    def _reward(self, loss: float, measured: Mapping[str, Any]) -> float:
        reward = Reward(measured["teacher_milliseconds"], self.stage.alpha, self.stage.beta)
        return reward(Measured(loss, measured["milliseconds"]))

    def _table(self) -> Table:
        """The table of this stage's folder, or a new one, fitted to measured shapes."""
        file = self.workspace.folder / "latency.json"
        if file.exists():
            stored = json.loads(file.read_text())
            return Table(tuple(stored["weights"]), tuple(stored["errors"]))
        latency, space = self.stage.latency, self.stage.space(self.config)
        random = numpy_stream(self.workspace.seed, "latency table", 0)
        shapes: dict[str, Any] = {}
        for _ in range(50 * (latency.fitted_on + latency.held_out)):
            candidate = space.draw(random)
            shapes.setdefault(space.key(candidate), space.config(candidate))
            if len(shapes) == latency.fitted_on + latency.held_out:
                break
        configs = list(shapes.values())
        self.say(f"{self.workspace.name}: timing {len(configs)} shapes")
        times = []
        for config in configs:
            timed = latency.timed(config, filled(families.build(config).shapes))
            own, teacher = in_turns([timed, self.teacher_timed], latency.rounds)
            times.append((own, teacher))
        # As shares of the teacher's time in the same rounds, then in milliseconds again.
        usual = float(np.median([teacher for _, teacher in times]))
        milliseconds = [usual * own / teacher for own, teacher in times]
        fit = max(1, len(configs) - latency.held_out)
        table = fitted(configs[:fit], milliseconds[:fit], configs[fit:], milliseconds[fit:])
        self.say(
            f"{self.workspace.name}: of {len(table.errors)} shapes that were held out "
            f"{100 * table.within:.0f}% are predicted within 10%"
        )
        write_json({"weights": table.weights, "errors": table.errors}, file)
        return table

    def _result(self) -> dict[str, Any]:
        records = self.study.records()
        complete = [record for record in records if record.state == "complete"]
        if not complete:
            reasons = "; ".join(f"{r.key}: {r.measured.get('reason')}" for r in records[:5])
            raise ValueError(f"{self.workspace.name}: no candidate could be measured. {reasons}")
        best = max(complete, key=lambda record: record.measured["reward"])
        config, params = self.starts.of(best.candidate)
        config = dataclasses.replace(config, **{n: getattr(self.original, n) for n in DROPOUT})
        folder = self.workspace.stage_folder(self.stage.teacher)
        tokenizer.keep(folder, self.workspace.folder)
        self.data.close()
        seconds, compiled = time.perf_counter() - self.began[0], compilations()[0] - self.began[1]
        search = {
            "optimizer": self.stage.optimizer,
            "start": self.stage.start,
            "alpha": self.stage.alpha,
            "beta": self.stage.beta,
            "latency": dataclasses.asdict(self.stage.latency),
            "space": {name: list(values) for name, values in self.space.values.items()},
            "combinations": self.space.size,
            "steps": self.train.steps,
            "teacher": {name: getattr(self.config, name) for name in ORDER},
            "rows": self.data.steps * self.stage.batch_size,
            "candidates": [_described(record) for record in records],
            "best": best.key,
            "by_hand": [self.space.key(candidate) for candidate in self.by_hand],
            "front": [complete[i].key for i in pareto_front([_point(r) for r in complete])],
            "seconds": seconds,
            "compilations": compiled,
            "table_errors": None if self.table is None else list(self.table.errors),
        }
        self.say(f"{self.workspace.name}: the best of {len(records)} is {best.key}")
        return {"search": search} | save_model(self.workspace, config, params)


def _rungs(steps: int, first: float, halving: int) -> tuple[int, ...]:
    """Steps after which a candidate may be stopped."""
    rungs, at = [], max(1, round(first * steps))
    while halving and at < steps:
        rungs.append(at)
        at *= halving
    return tuple(rungs)


def _fingerprint(workspace: Workspace) -> str:
    return json.loads((workspace.folder / "config.json").read_text())["fingerprint"]


def _outcome(record: Record) -> Outcome | None:
    if record.state == "failed":
        return None
    point = _point(record)
    return Outcome(record.measured["reward"], point.loss, point.milliseconds)


def _point(record: Record) -> Measured:
    """Its loss, and its time as a share of its teacher's."""
    measured = record.measured
    return Measured(measured["loss"], share_of_time(measured), measured["parameters"])


def share_of_time(measured: Mapping[str, Any]) -> float:
    """A candidate's time as a share of its teacher's."""
    return measured["milliseconds"] / measured["teacher_milliseconds"]


def _described(record: Record) -> dict[str, Any]:
    return {
        "candidate": dict(record.candidate),
        "key": record.key,
        "state": record.state,
        "rungs": {str(step): loss for step, loss in record.rungs.items()},
    } | dict(record.measured)
