"""The notebook of docs/ runs from its first cell to its last, in a fresh process."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.xla import FAST_COMPILATION

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # a search, two trainings, a bundle


def test_the_tutorial_runs_and_ends_on_the_device(tmp_path):
    notebook = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    # Outputs would be those of one machine; whoever opens the notebook makes their own.
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    script = tmp_path / "tutorial.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in cells))
    env = os.environ | {"TMPDIR": str(tmp_path), "XLA_FLAGS": FAST_COMPILATION}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT / "docs", env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "right" in done.stdout and "p50" in done.stdout  # --selftest and --bench
    assert "the best of 6" in done.stdout
