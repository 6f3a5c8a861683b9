"""The candidates of a search, in Optuna's own storage: who measures which, and what came out.

Several processes may share a study. A candidate belongs to the trial with the lowest number that
names it, so that no lock is held while one is chosen.
"""

import dataclasses
import fcntl
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxkd.search.optuna_package import optuna
from jaxkd.search.space import Candidate, Space

TRIES = 20  # claims in a row that another process won; the space is then used up
UNDECIDED = 10.0  # seconds that a process may take between a trial's number and its candidate
State = optuna.trial.TrialState
STATES = {
    State.RUNNING: "running",
    State.COMPLETE: "complete",
    State.PRUNED: "stopped",
    State.FAIL: "failed",
}


@dataclasses.dataclass(frozen=True)
class Record:
    """One candidate of the study."""

    number: int  # of Optuna's trial
    candidate: Candidate
    key: str
    state: str  # running, complete, stopped (at a rung) or failed
    worker: str
    seen: float  # time of the last sign of life
    measured: Mapping[str, Any]  # reward, loss, milliseconds ...; of a failed one: reason
    rungs: Mapping[int, float]  # step -> loss


class Study:
    """A study that is created or opened.

    Args:
      storage: a file for Optuna's journal, or a URL of its RDB storage ("postgresql://...").
      name: two searches that measure differently have different names.
      worker: this process; another one's candidates are left alone.
      most: number of candidates in all, of all processes.
      patience: seconds without a sign of life after which another process's candidate is taken
        over.
    """

    def __init__(
        self,
        space: Space,
        storage: str,
        name: str,
        worker: str,
        most: int,
        patience: float = 3600.0,
    ):
        self.space, self.worker, self.most, self.patience = space, worker, most, patience
        self._sampler = _Chosen()
        self._study = optuna.create_study(
            storage=open_storage(storage),
            study_name=name,
            sampler=self._sampler,
            direction="maximize",
            load_if_exists=True,
        )
        self._trials: dict[int, Any] = {}  # those this process measures

    def close(self) -> None:
        """Give a database's connections back; nothing can be done with the study afterwards."""
        storage = self._study._storage
        storage.remove_session()
        engine = getattr(getattr(storage, "_backend", storage), "engine", None)
        if engine is not None:
            engine.dispose()

    def records(self) -> list[Record]:
        """All candidates, each once, by their numbers."""
        return _records(self._study.get_trials(deepcopy=False))[: self.most]

    def interrupted(self) -> list[Record]:
        """Candidates that nobody measures any more: this worker's own, and abandoned ones."""
        return [
            record
            for record in self.records()
            if record.state == "running"
            and record.number not in self._trials
            and (record.worker == self.worker or self._is_abandoned(record))
        ]

    def claim(self, suggest: Callable[[int, Sequence[str]], Candidate]) -> Record | None:
        """The next candidate for this process; None: there are `most`, or no other is left.

        Args:
          suggest: (number of candidates before it, keys that are being measured) -> a candidate.
        """
        for _ in range(TRIES):
            before = self.records()
            if len(before) >= self.most:
                return None
            taken = [record.key for record in before]
            record = self._claimed(suggest(len(before), taken))
            if record is not None:
                return record
        return None

    def resume(self, record: Record) -> Record | None:
        """Take an interrupted candidate over; None: another process was faster."""
        return self._claimed(record.candidate, instead_of=record.number)

    def report(self, record: Record, step: int, loss: float) -> None:
        """The loss at a rung; also a sign of life."""
        trial = self._trials[record.number]
        trial.report(loss, step)
        trial.set_user_attr("seen", time.time())

    def finish(
        self, record: Record, reward: float, measured: Mapping[str, Any], stopped: bool
    ) -> None:
        """Store what was measured; `stopped`: at a rung, so that it is no candidate for the best.

        Args:
          measured: anything that JSON holds.
        """
        trial = self._trials.pop(record.number)
        trial.set_user_attr("measured", dict(measured) | {"reward": reward})
        if stopped:
            self._study.tell(trial, state=State.PRUNED)
        else:
            self._study.tell(trial, reward)

    def fail(self, record: Record, reason: str) -> None:
        """Store why a candidate could not be measured."""
        trial = self._trials.pop(record.number)
        trial.set_user_attr("measured", {"reason": reason})
        self._study.tell(trial, state=State.FAIL)

    def _claimed(self, candidate: Candidate, instead_of: int | None = None) -> Record | None:
        self._sampler.values = dict(candidate)
        trial = self._study.ask()
        trial.set_user_attr("worker", self.worker)
        trial.set_user_attr("seen", time.time())
        for name, value in candidate.items():
            trial.suggest_categorical(name, self.space.values[name])
            assert trial.params[name] == value
        if instead_of is not None:
            trial.set_user_attr("instead_of", instead_of)
        key = self.space.key(candidate)
        trial.set_user_attr("key", key)  # last: now it counts
        self._wait_for_earlier(trial.number)
        own = [r for r in self.records() if r.key == key and r.number == trial.number]
        if not own:
            trial.set_user_attr("dropped", True)
            self._study.tell(trial, state=State.FAIL)
            return None
        self._trials[trial.number] = trial
        return own[0]

    def _wait_for_earlier(self, number: int) -> None:
        """Until trials of other processes with lower numbers have their candidates.

        One of them may name the same candidate, or be the last that there is room for. A process
        that was killed between its number and its candidate is not waited for.
        """
        while any(
            trial.number < number
            and "key" not in trial.user_attrs
            and time.time() - trial.datetime_start.timestamp() < UNDECIDED
            for trial in self._study.get_trials(deepcopy=False, states=(State.RUNNING,))
        ):
            time.sleep(0.01)

    def _is_abandoned(self, record: Record) -> bool:
        return time.time() - record.seen > self.patience


class _Chosen(optuna.samplers.BaseSampler):
    """Gives a trial the values that were chosen elsewhere."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        return self.values[name]


def open_storage(storage: str) -> Any:
    """Optuna's storage at a URL, or its journal in a file, whose folder is made if need be."""
    if "://" in storage:
        return optuna.storages.get_storage(storage)
    path = pathlib.Path(storage)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _FileLock(path)
    with lock:
        _drop_unfinished_line(path)
    backend = optuna.storages.journal.JournalFileBackend(os.fspath(path), lock_obj=lock)
    return optuna.storages.JournalStorage(backend)


class _FileLock:
    """A lock that the system frees when its process dies; Optuna's own would have to time out."""

    def __init__(self, path: pathlib.Path):
        self._path, self._file = path.with_name(f"{path.name}.lock"), None

    def acquire(self) -> bool:
        self._file = open(self._path, "w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        self._file.close()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: Any) -> None:
        self.release()


def _drop_unfinished_line(path: pathlib.Path) -> None:
    """Cut off what a killed process wrote of its last line: after it nothing could be read."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _records(trials: Sequence[Any]) -> list[Record]:
    """Each candidate once, by the number of the trial it belongs to."""
    replaced = {trial.user_attrs.get("instead_of") for trial in trials}
    records: dict[str, Record] = {}
    for trial in trials:
        attributes = trial.user_attrs
        if "key" not in attributes or "dropped" in attributes or trial.number in replaced:
            continue
        records.setdefault(
            attributes["key"],
            Record(
                trial.number,
                dict(trial.params),
                attributes["key"],
                STATES[trial.state],
                attributes["worker"],
                attributes["seen"],
                attributes.get("measured", {}),
                dict(trial.intermediate_values),
            ),
        )
    return list(records.values())
