"""Two processes on one machine are one run; if one dies, the other ends too, and both go on."""

import json
import os
import pathlib
import signal
import socket
import time

import jax
import numpy as np
import pytest

from jaxkd.checkpoint.teacher_store import Store
from jaxkd.data.rows.masking import Masking
from jaxkd.stages.models import load_model
from tests.processes import Program, start_program
from tests.stages import small, written
from tests.xla import FAST_COMPILATION

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # each is a whole run or two, by two processes


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("multihost")
    small.write_corpus(folder / "corpus")
    return folder


def start(
    workspace: pathlib.Path, workdir: str, *more: str, devices: int = 1, config: str = "small"
) -> Program:
    words = [
        "run.py", "--config", f"tests/stages/{config}.py",
        f"--workdir={workspace / workdir}", "--config.stages.teacher.parallel=sharded", *more,
    ]  # fmt: skip
    if config == "small":
        words += [
            f"--config.data.dir={workspace / 'corpus'}", "--config.stages.student.parallel=sharded"
        ]  # fmt: skip
    env = os.environ | {
        "JAXKD_CACHE": str(workspace / "cache"),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {FAST_COMPILATION}",
    }
    return start_program(words, ROOT, env)


def start_both(workspace: pathlib.Path, workdir: str, config: str = "small") -> list[Program]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ("--multihost", f"--coordinator=127.0.0.1:{port}", "--processes=2")
    return [start(workspace, workdir, *where, f"--process={i}", config=config) for i in range(2)]


def finished(processes: list[Program]) -> None:
    for process in processes:
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output


@pytest.fixture(scope="module")
def alone(workspace):
    """One process with the two devices."""
    finished([start(workspace, "alone", devices=2)])
    return workspace / "alone" / "small-small" / "0"


def assert_same(folder: pathlib.Path, expected: pathlib.Path) -> None:
    for stage in ("teacher", "student"):
        actual, output = (load_model(at / stage)[1] for at in (folder, expected))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), actual, output)


def test_two_processes_get_the_parameters_of_one(workspace, alone):
    finished(start_both(workspace, "both"))
    folder = workspace / "both" / "small-small" / "0"
    assert_same(folder, alone)
    rows, expected = (
        [
            json.loads(line)["loss"]
            for line in (at / "student/metrics.jsonl").read_text().split("\n")
            if line
        ]
        for at in (folder, alone)
    )
    np.testing.assert_allclose(rows, expected, rtol=1e-5)  # and each line is there once


@pytest.mark.parametrize("killed", [0, 1])
def test_if_one_dies_the_other_ends_with_an_error_and_both_go_on(workspace, alone, killed):
    workdir = f"killed-{killed}"
    folder = workspace / workdir / "small-small" / "0"
    processes = start_both(workspace, workdir)
    deadline = time.monotonic() + 240
    while not (folder / "teacher/checkpoint/00000004.sha256.json").exists():
        assert time.monotonic() < deadline, "the moment to kill never came"
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    os.kill(processes[killed].pid, signal.SIGKILL)
    processes[killed].communicate()
    output, _ = processes[1 - killed].communicate(timeout=240)
    assert processes[1 - killed].returncode not in (0, None), output
    finished(start_both(workspace, workdir))
    assert_same(folder, alone)


def test_two_processes_write_what_one_writes(workspace):
    finished([start(workspace, "wrote-alone", devices=2, config="written")])
    finished(start_both(workspace, "wrote-both", config="written"))
    rows = written.get_config().data.open(workspace / "cache")
    numbers = np.arange(written.ROWS)
    token_mask = {
        "generated": rows.sources(rows.splits["train"]),
        "labels": rows.repeated(numbers, 0, Masking()),
    }
    for stage, batch in token_mask.items():
        actual, expected = (
            Store(workspace / name / "written-written/0" / stage / "store", {}).read(numbers, batch)
            for name in ("wrote-both", "wrote-alone")
        )
        scores = {"scores", "log_probability"} & set(actual)
        for name in set(actual) - scores:  # tokens drawn or found, and their number
            np.testing.assert_array_equal(actual[name], expected[name])
        for name in scores:
            np.testing.assert_allclose(actual[name], expected[name], rtol=1e-5)
