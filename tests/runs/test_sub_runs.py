"""Stages inside stages: skipped, resumed, replaced and reported as all others."""

import dataclasses
import json
import os
import pathlib
import signal
import time

import jax
import numpy as np
import pytest

from jaxkd.runs import runner
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.models import load_model
from tests.processes import start_program
from tests.runs import nested
from tests.stages import small
from tests.xla import FAST_COMPILATION

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small.write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def go(corpus, cache, workdir, change=lambda e: e, **settings) -> pathlib.Path:
    return runner.run(
        change(nested.experiment(str(corpus), **settings)),
        name="nested", variant="test", command="pytest", workdir=workdir, cache=cache,
    )  # fmt: skip


def times(folder) -> dict[str, int]:
    return {
        str(f.parent.relative_to(folder)): f.stat().st_mtime_ns for f in folder.rglob("done.json")
    }


@pytest.fixture(scope="module")
def whole(corpus, cache, tmp_path_factory):
    return go(corpus, cache, tmp_path_factory.mktemp("whole"))


def test_each_has_a_folder_inside_and_stands_in_the_results(whole):
    search = whole / "0" / "search"
    record = json.loads((search / "done.json").read_text())
    names = [f"{what}_{n}" for n in (1, 2) for what in ("init", "student", "evaluate")]
    assert record["runs"] == names
    assert all((search / name / "done.json").is_file() for name in names)
    assert load_model(search / "student_1")[0].layers == 1
    results = json.loads((whole / "results.json").read_text())
    assert set(results["stages"]) == {
        "teacher_init", "teacher", "search", *(f"search/{name}" for name in names)
    }  # fmt: skip
    splits = results["models"]["search/student_2"]["seeds"]["0"]
    assert splits["validation"]["loss"] == record["metrics"]["losses"]["2"]
    assert [row["step"] for row in results["curves"]["search/student_1"]["0"]]


def test_a_second_run_does_nothing_and_a_lost_end_runs_only_what_is_missing(
    whole, corpus, cache, tmp_path
):
    before = times(whole)
    go(corpus, cache, whole.parent)
    assert times(whole) == before
    (whole / "0" / "search" / "done.json").unlink()
    (whole / "0" / "search" / "evaluate_2" / "done.json").unlink()
    go(corpus, cache, whole.parent)
    changed = {name for name, when in times(whole).items() if before[name] != when}
    assert changed == {"0/search", "0/search/evaluate_2"}


@dataclasses.dataclass
class Undeclared(nested.Depths):
    def inputs(self):
        return ()


@dataclasses.dataclass
class Wrong(nested.Depths):
    what: str = ""

    def run(self, workspace):
        if self.what == "twice":
            workspace.run("one", Initialise(like="teacher", layers=1))
            workspace.run("one", Initialise(like="teacher", layers=2))
        name = {"taken": "teacher", "reserved": "checkpoint", "path": "../x"}.get(self.what, "one")
        workspace.run(name, Initialise(like="teacher", layers=0 if self.what != "range" else -1))


@pytest.mark.parametrize(
    "stage, message",
    [
        (Undeclared(like="teacher"), "reads 'teacher': add it to the inputs\\(\\) of 'search'"),
        (Wrong(like="teacher", what="twice"), "ran 'one' inside it before with another config"),
        (Wrong(like="teacher", what="taken"), "a stage of the experiment has that name already"),
        (Wrong(like="teacher", what="reserved"), "is none of replaced, checkpoint"),
        (Wrong(like="teacher", what="path"), "a name has letters, digits"),
        (Wrong(like="teacher", what="range"), "stage 'one': layers is -1; it must be at least 0"),
    ],
)
def test_what_would_not_be_noticed_is_refused(corpus, cache, tmp_path, whole, stage, message):
    def change(e):
        return dataclasses.replace(e, stages=e.stages | {"search": stage})

    with pytest.raises(ValueError, match=message):
        go(corpus, cache, whole.parent, change)


MOMENTS = (  # what is on disk when it is killed, one after the other
    "search/init_1/config.json",
    "search/student_1/checkpoint/00000004.sha256.json",
    "search/student_2/config.json",
)


@pytest.mark.slow
def test_killed_inside_sub_runs_it_ends_in_the_same_bits(corpus, tmp_path):
    def start(workdir):
        words = [
            "run.py", "--config", "tests/runs/nested.py",
            f"--config.data.dir={corpus}", f"--workdir={tmp_path / workdir}",
        ]  # fmt: skip
        env = os.environ | {"JAXKD_CACHE": str(tmp_path / "cache"), "XLA_FLAGS": FAST_COMPILATION}
        return start_program(words, ROOT, env)

    def finish(workdir):
        process = start(workdir)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        return output, tmp_path / workdir / "nested-nested" / "0"

    _, expected = finish("whole")
    folder, outputs = tmp_path / "killed" / "nested-nested" / "0", []
    for moment in MOMENTS:
        process, deadline = start("killed"), time.monotonic() + 240
        while not (folder / moment).exists():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.0005)
        os.kill(process.pid, signal.SIGKILL)
        outputs.append(process.communicate()[0])
    finish("killed")
    assert "student_1: going on from step 4" in outputs[2]  # after the kill in its training
    for name in ("student_1", "student_2"):
        pair = [load_model(at / "search" / name)[1] for at in (folder, expected)]
        jax.tree.map(np.testing.assert_array_equal, *pair)
    records = [json.loads((at / "search/done.json").read_text()) for at in (folder, expected)]
    assert records[0]["metrics"] == records[1]["metrics"]
