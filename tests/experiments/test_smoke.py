"""Every experiment runs from end to end in its smallest size, without any network."""

import json
import os
import pathlib

import pytest

from jaxkd.data.sources.find import MADE
from tests.processes import run_program
from tests.xla import FAST_COMPILATION

ROOT = pathlib.Path(__file__).parents[2]
EXPERIMENTS = [
    pytest.param(p.stem, marks=pytest.mark.slow)  # a minute each
    for p in sorted((ROOT / "experiments").glob("*.py"))
    if p.stem != "nas_kd"  # test_tutorial.py runs its smoke, report and bundle included
]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_smoke(name, tmp_path):
    env = os.environ | {"JAXKD_CACHE": str(tmp_path / "cache"), "XLA_FLAGS": FAST_COMPILATION}
    env.pop("JAXKD_DATA", None)
    words = ["run.py", "--config", f"experiments/{name}.py:smoke", "--workdir", str(tmp_path)]
    done = run_program(words, ROOT, env)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / f"{name}-smoke"
    results = json.loads((folder / "results.json").read_text())
    report = (folder / "report.md").read_text()
    if results["data"] is not None and results["data"]["origin"] != MADE:
        assert results["data"]["embedded"]
        assert f"not {results['data']['expected_corpus']}".lower() in report.lower()
    for export in results["exports"].values():
        for checked in export["0"].values():
            assert checked["max_abs_difference"] < 1e-4 or "bits" in checked  # int8 is scored
