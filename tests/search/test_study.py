"""A shared study: interrupted anywhere it goes on, and no candidate is measured by two."""

import json
import os
import pathlib
import random
import signal
import threading
import time

import pytest

from jaxkd.search.study import Study, open_storage
from tests.processes import start_program
from tests.search.trials import SPACE, reward, search

ROOT = pathlib.Path(__file__).parents[2]
MOST = 24


def start(journal, worker, pause=0.02, most=MOST, begin=()):
    words = ["tests/search/trials.py", journal, worker, most, pause, *begin]
    return start_program(list(map(str, words)), ROOT, os.environ)


def finish(process):
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output


def keys(journal, worker="reader"):
    return [record.key for record in Study(SPACE, str(journal), "trials", worker, MOST).records()]


def measured(journal):
    with open(f"{journal}.measured") as file:
        return [json.loads(line) for line in file]


def test_killed_at_ten_random_moments_it_ends_with_the_same_candidates(tmp_path):
    search(str(tmp_path / "whole.journal"), "one", MOST)
    whole = keys(tmp_path / "whole.journal")
    assert len(whole) == MOST
    journal, draw = tmp_path / "killed.journal", random.Random(0)
    for _ in range(10):
        process = start(journal, "one", pause=0.1)
        while process.poll() is None and not journal.exists():
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 0.5))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    finish(start(journal, "one"))
    assert keys(journal) == whole
    # What was finished before a kill is not measured again: at most one candidate a kill.
    assert len(measured(journal)) <= MOST + 10


def test_two_processes_never_measure_one_candidate(tmp_path):
    journal, begin = tmp_path / "study" / "shared.journal", tmp_path / "begin"
    workers = ("one", "two")
    processes = [start(journal, worker, pause=0.1, begin=[begin]) for worker in workers]
    # Neither begins before both have imported what they need.
    waiting = [journal.with_name(f"{journal.name}.{worker}.ready") for worker in workers]
    while not all(file.exists() for file in waiting):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    begin.touch()
    for process in processes:
        finish(process)
    lines = measured(journal)
    assert sorted(key for _, key in lines) == sorted(keys(journal))
    assert len(lines) == MOST and {worker for worker, _ in lines} == {"one", "two"}


def test_an_abandoned_candidate_is_taken_over_and_another_workers_is_not(tmp_path):
    journal = str(tmp_path / "study.journal")
    one, two = (Study(SPACE, journal, "trials", name, MOST) for name in ("one", "two"))
    record = one.claim(lambda number, taken: SPACE.all()[0])
    assert two.interrupted() == []
    hasty = Study(SPACE, journal, "trials", "two", MOST, patience=0.0)
    assert [each.key for each in hasty.interrupted()] == [record.key]
    again = hasty.resume(hasty.interrupted()[0])
    assert again.key == record.key and again.worker == "two"
    # One process after a restart takes up its own at once.
    restarted = Study(SPACE, journal, "trials", "two", MOST)
    assert [each.number for each in restarted.interrupted()] == [again.number]


def test_what_two_claim_at_once_belongs_to_the_first(tmp_path):
    journal = str(tmp_path / "study.journal")
    one, two = (Study(SPACE, journal, "trials", name, MOST) for name in ("one", "two"))
    candidates = iter(SPACE.all())

    def late(number, taken):
        one.claim(lambda *_: SPACE.all()[0])  # while this one thinks
        return next(candidates)

    record = two.claim(late)
    assert record.key != SPACE.key(SPACE.all()[0])
    assert len(keys(journal)) == len(set(keys(journal))) == 2


def test_a_claim_waits_for_a_trial_that_began_before_it(tmp_path):
    """The earlier one has its number and not yet its candidate, which is the same."""
    journal, candidate = str(tmp_path / "study.journal"), SPACE.all()[7]
    one, two = (Study(SPACE, journal, "trials", name, MOST) for name in ("one", "two"))
    earlier = one._study.ask()

    def decide():
        earlier.set_user_attr("worker", "one")
        earlier.set_user_attr("seen", time.time())
        earlier.set_user_attr("key", SPACE.key(candidate))

    timer = threading.Timer(0.5, decide)
    timer.start()
    assert two._claimed(candidate) is None
    timer.join()
    assert [(r.key, r.worker) for r in two.records()] == [(SPACE.key(candidate), "one")]


def test_stopped_and_failed_candidates_keep_what_was_measured(tmp_path):
    study = Study(SPACE, str(tmp_path / "study.journal"), "trials", "one", 2)
    first = study.claim(lambda number, taken: SPACE.all()[0])
    study.report(first, 3, 0.5)
    study.finish(first, 0.25, {"loss": 0.5}, stopped=True)
    study.fail(study.claim(lambda number, taken: SPACE.all()[1]), "MemoryError: too large")
    stopped, failed = study.records()
    assert (stopped.state, dict(stopped.rungs)) == ("stopped", {3: 0.5})
    assert stopped.measured == {"loss": 0.5, "reward": 0.25}
    assert (failed.state, failed.measured) == ("failed", {"reason": "MemoryError: too large"})
    assert study.claim(lambda number, taken: SPACE.all()[2]) is None  # there are enough


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path):
    journal = tmp_path / "study.journal"
    search(str(journal), "one", 3)
    whole = keys(journal)
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 5, "trial')
    assert keys(journal) == whole
    search(str(journal), "one", 4)
    assert keys(journal)[:3] == whole and len(keys(journal)) == 4


def test_a_database_serves_as_well(tmp_path):
    study = Study(SPACE, f"sqlite:///{tmp_path / 'study.db'}", "trials", "one", 2)
    record = study.claim(lambda number, taken: SPACE.all()[5])
    study.finish(record, reward(record.key), {"loss": 0.1}, stopped=False)
    again = Study(SPACE, f"sqlite:///{tmp_path / 'study.db'}", "trials", "two", 2)
    assert [each.key for each in again.records()] == [record.key]
    for each in (study, again):  # Python 3.13 warns of connections that nobody closed
        each.close()
    with pytest.raises(Exception, match="nonsense"):
        open_storage("nonsense://nowhere")
