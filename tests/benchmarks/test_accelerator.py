"""The benchmark for an accelerator: dry runs, and what happens to programs that fail."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.xla import FAST_COMPILATION

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import accelerator

    return accelerator


def run(folder, *words):
    env = os.environ | {"XLA_FLAGS": FAST_COMPILATION, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), "--out", str(folder), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_a_dry_run_writes_each_row_and_all_programs_agree(tmp_path):
    pytest.importorskip("torch")
    names = ["G4", "G7", "G6", "G3", "G8"]
    done = run(tmp_path, "--toy", "--threads", "1", "--rows", *names)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "accelerator.json").read_text())["rows"]
    assert list(rows) == names
    for name, row in rows.items():
        assert not row["failed"] and len(row["seconds"]) >= 2, (name, row)
    assert (tmp_path / "accelerator.md").read_text().strip() == done.stdout.strip()


def test_without_an_accelerator_it_says_how_to_try(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1 and "--toy" in done.stderr and not list(tmp_path.iterdir())
    done = run(tmp_path, "--rows", "G9")
    assert done.returncode == 2 and "no row G9. Allowed: G4, G7" in done.stderr


def test_floors_are_those_of_the_shapes(accelerator):
    """FLOPs by hand: 2 a multiplication and addition, forward of both, backward of the student."""
    rows = accelerator.rows_of(toy=False)
    # A layer of Llama 1B: queries and output 2 x 2048^2, keys and values 2 x 2048 x 512, three
    # matrices of 2048 x 8192; 16 layers; the head; causal attention is half of all pairs.
    params = 16 * (2 * 2048**2 + 2 * 2048 * 512 + 3 * 2048 * 8192) + 2048 * 128256
    attention = 16 * 32 * 1024**2 * 2048
    assert rows["G4"].flops == 8 * (32 * 1024 * params + attention)
    assert rows["G4"].flops == pytest.approx(3.3e14, rel=0.02)
    assert rows["G1"].flops == pytest.approx(21.5e12, rel=0.01)
    assert rows["G2"].flops == pytest.approx(34.4e12, rel=0.01)
    assert rows["G3"].flops == pytest.approx(29e12, rel=0.01)
    # Weights of 1.24e9 parameters in 256 steps, and 400 beams' keys and values.
    cached = 2 * 16 * 8 * 64 * 400 * (256 + 128)
    assert rows["G7"].bytes == 2 * 256 * (params + cached)


PROGRAM = """
import sys, time
sys.path.insert(0, {benchmarks!r})
import peers
name = sys.argv[sys.argv.index("--serve") + 1]
if name == "dies":
    sys.exit(3)
value = 2.0 if name == "differs" else 1.0
peers.serve(lambda: {{"loss": value}}, peers.timed(lambda: time.sleep(60 if name == "slow" else 0)))
"""


def test_what_fails_is_said_and_the_others_go_on(accelerator, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(benchmarks=str(BENCHMARKS)))
    row = accelerator.Row("a row", str(script), ("ours", "dies", "differs", "same", "slow"))
    results = accelerator.measured(row, tmp_path, 1, 5.0)
    assert set(results["seconds"]) == {"ours", "same"}
    assert len(results["seconds"]["ours"]) == len(results["seconds"]["same"]) == 1  # in time
    failed = results["failed"]
    assert "died: 3" in failed["dies"]
    assert failed["differs"] == "it computes something else: loss is 100.0% off ours"
    assert failed["slow"] == "stopped: no time was left"
    text = accelerator.table({"G0": results}, {"flops": 1e12, "bytes": 1e12}, "a machine")
    assert "| G0 | a row | same |" in text and "stopped: no time was left" in text


def test_a_model_that_cannot_be_written_is_said(accelerator, tmp_path):
    row = accelerator.Row("a row", "accelerator_peers.py", ("step jaxkd",), model="no model")
    results = accelerator.measured(row, tmp_path, 1, 60.0)
    assert not results["seconds"] and "died" in results["failed"]["model"]


def test_a_row_is_not_begun_without_its_time(tmp_path):
    done = run(tmp_path, "--toy", "--threads", "1", "--limit", "0")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "accelerator.json").read_text())["rows"]
    assert all(row["failed"]["all"].startswith("not begun") for row in rows.values())
    assert len(rows) == 8
