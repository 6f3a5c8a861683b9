"""What the report says of optimizers that were compared."""

import pytest

from jaxkd.report import optimizers
from jaxkd.report.write import summary, write

RUN = {
    "search": "search", "candidates": 20, "max_time": 0.0, "best": 0.9, "within": 0.1,
    "near_best": 2,
    "improvements": {
        # Within a tenth of 0.9, which is 0.81.
        "random": [[[1, 0.5], [12, 0.85]], [[1, 0.6], [8, 0.9]], [[1, 0.1], [3, 0.82]]],
        "evolution": [[[1, 0.5], [4, 0.9]], [[1, 0.7], [2, 0.9]], [[1, 0.9]]],
    },
}  # fmt: skip


def results(run):
    return {"seeds": [0], "data": {"corpus": "Words"}, "optimizers": {"compare": {"0": run}}}


def test_candidates_until_the_best_and_the_regret_on_the_way():
    table = optimizers.needed_table(results(RUN), RUN)
    # After 2 candidates 0.5, 0.6, 0.1 of 0.9, after 5 0.5, 0.6, 0.82.
    assert table.rows[0] == ("random", "8", "3", "12", "1.00", "0.500", "0.260")
    assert table.rows[1][:5] == ("evolution", "2", "1", "4", "0.25")
    assert float(table.rows[1][5]) == pytest.approx(0.4 / 3, abs=1e-3)
    assert float(table.rows[1][6]) == 0


def test_without_random_search_there_is_no_ratio():
    run = RUN | {"improvements": {"evolution": RUN["improvements"]["evolution"]}}
    assert optimizers.needed_table(results(run), run).rows[0][4] == "–"


def test_an_optimizer_that_never_comes_near_counts_all_candidates():
    assert optimizers.needed([[1, 0.5]], 0.8, 20) == 20


def test_the_report_has_the_section_and_the_readme_the_table(tmp_path):
    write(results(RUN | {"max_time": 0.5}), tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "## Optimizers: compare" in report
    assert "One seed (0). Only optimizers' numbers have a spread." in report
    assert "The 20 candidates of search that take at most 0.5 of the teacher's time" in report
    assert "2 are within 10% of it. Each optimizer was run 3 times" in report
    assert (tmp_path / "compare-regret-over-candidates.png").stat().st_size > 1000
    assert "| evolution | 2 | 1 | 4 | 0.25 |" in summary(results(RUN))
