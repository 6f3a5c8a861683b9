"""What the report says of a search, from a results file written by hand."""

import json

import pytest

from jaxkd.report import search
from jaxkd.report.write import write


def candidate(key, layers, state="complete", **measured):
    numbers = {"loss": 0.2, "milliseconds": 3.0, "teacher_milliseconds": 6.0, "parameters": 1000,
               "reward": 0.8, "seconds": 2.5, "steps": 8, "compilations": 3}  # fmt: skip
    if state == "failed":
        numbers = {}
    return {"candidate": {"layers": layers}, "key": key, "state": state, "rungs": {}} | (
        numbers | measured
    )


@pytest.fixture
def results():
    run = {
        "optimizer": "tpe", "start": "teacher", "alpha": -0.06, "beta": 0.6,
        "latency": {"of": "onnx", "batch": 1, "length": 64}, "space": {"layers": [1, 2, 3, 4]},
        "combinations": 4, "steps": 8, "rows": 640, "teacher": {"layers": 4},
        "candidates": [
            candidate("layers-3", 3, loss=0.1, milliseconds=4.5, reward=0.88),
            candidate("layers-2", 2, reward=0.9),
            candidate("layers-1", 1, state="stopped", loss=0.6, milliseconds=1.5, reward=0.5),
            candidate("layers-4", 4, state="failed", reason="MemoryError: no room"),
        ],
        "best": "layers-2", "by_hand": ["layers-3"], "front": ["layers-2", "layers-3"],
        "seconds": 30.0, "compilations": 12, "table_errors": [0.02, -0.2],
    }  # fmt: skip
    return {"seeds": [0], "data": {"corpus": "Words"}, "search": {"search": {"0": run}}}


def test_the_report_shows_what_was_found_what_it_cost_and_what_failed(results, tmp_path):
    write(results, tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "| best, seed 0 | 2 | 0.500 | 1,000 | 0.200 | 0.900 |" in report
    assert "| best by hand, seed 0 | 3 | 0.750 | 1,000 | 0.100 | 0.880 |" in report
    # 4 candidates, 1 stopped, 1 failed, 24 steps, 7.5 s, 9 compilations, one of two within 10%.
    assert "| 0 | tpe | 4 | 4 | 1 | 1 | 24 | 7.500 | 9 | 50% of 2 |" in report
    assert "Failed: layers-4: MemoryError: no room." in report
    assert "the ONNX file under onnxruntime, 1 x 64 tokens, predicted from timed shapes" in report
    assert "in which faster candidates are worth more" in report
    assert (tmp_path / "search-best-reward-so-far.png").stat().st_size > 1000


def test_the_sign_of_alpha_is_said_as_it_is(results):
    run = results["search"]["search"]["0"]
    assert "slower candidates" in search.introduction(run | {"alpha": 0.06})
    assert "no candidates" in search.introduction(run | {"alpha": 0.0})
    assert "random weights" in search.introduction(run | {"start": "random"})


def test_results_without_a_search_have_no_section(results):
    assert search.sections(json.loads('{"seeds": [0]}'), str) == []
