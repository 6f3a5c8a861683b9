"""SIGKILL at any moment, in a write too: the run goes on, and ends in the very same bits."""

import json
import os
import pathlib
import signal
import time

import jax
import numpy as np
import pytest

from jaxkd.stages.models import load_model
from tests.processes import Program, start_program
from tests.stages import small

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # each is a whole run or two


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    small.write_corpus(folder / "corpus")
    return folder


def start(workspace: pathlib.Path, workdir: str) -> Program:
    words = [
        "run.py", "--config", "tests/stages/small.py",
        f"--config.data.dir={workspace / 'corpus'}", f"--workdir={workspace / workdir}",
    ]  # fmt: skip
    env = os.environ | {"JAXKD_CACHE": str(workspace / "cache"), "XLA_FLAGS": ""}
    return start_program(words, ROOT, env)


def finish(workspace: pathlib.Path, workdir: str) -> tuple[str, pathlib.Path]:
    process = start(workspace, workdir)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output, workspace / workdir / "small-small" / "0"


@pytest.fixture(scope="module")
def uninterrupted(workspace):
    return finish(workspace, "uninterrupted")[1]


def kill_when(process: Program, seen) -> None:
    """SIGKILL as soon as `seen()`; fails if the run ends before that."""
    deadline = time.monotonic() + 240
    while not seen():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the moment to kill never came"
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


MOMENTS = {  # what is on disk at the moment of the kill, below the seed's folder
    "before the first step": "teacher/config.json",
    "while a checkpoint is written": "teacher/checkpoint/*/head*",
    "between a checkpoint and its digests": "teacher/checkpoint/00000008",
    "after the first checkpoint": "teacher/checkpoint/00000004.sha256.json",
    "in the pruning": "student_init/config.json",
    "in the distillation": "student/checkpoint/00000004.sha256.json",
    "in the evaluation": "evaluate/config.json",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_in_the_same_bits(workspace, uninterrupted, moment):
    workdir = moment.replace(" ", "-")
    folder = workspace / workdir / "small-small" / "0"
    kill_when(start(workspace, workdir), lambda: any(folder.glob(MOMENTS[moment])))
    output, folder = finish(workspace, workdir)
    for stage in ("teacher", "student"):
        (config, actual), (wanted_config, expected) = (
            load_model(at / stage) for at in (folder, uninterrupted)
        )
        assert config == wanted_config
        jax.tree.map(np.testing.assert_array_equal, actual, expected)
        rows, wanted_rows = (
            [
                {k: v for k, v in row.items() if "second" not in k and k != "mfu"}
                for row in map(json.loads, (at / stage / "metrics.jsonl").read_text().splitlines())
            ]
            for at in (folder, uninterrupted)
        )
        assert rows == wanted_rows
    if moment == "after the first checkpoint":
        assert "teacher: going on from step 4" in output


def test_kills_at_random_moments_end_in_the_same_bits(workspace, uninterrupted):
    draw = np.random.default_rng(int(time.time()))
    for _ in range(3):
        process = start(workspace, "random")
        time.sleep(draw.uniform(1, 20))
        process.kill()
        process.communicate()
    _, folder = finish(workspace, "random")
    actual, expected = (load_model(at / "student")[1] for at in (folder, uninterrupted))
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_a_polite_stop_saves_the_step_it_is_at(workspace, uninterrupted):
    process = start(workspace, "polite")
    folder = workspace / "polite" / "small-small" / "0"
    deadline = time.monotonic() + 240
    while not (folder / "teacher/metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped after step" in output
    output, folder = finish(workspace, "polite")
    assert "teacher: going on from step" in output
    actual, expected = (load_model(at / "student")[1] for at in (folder, uninterrupted))
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
