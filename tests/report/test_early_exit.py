"""Early exit in reports: which settings are chosen, and by which rows."""

import pytest

from jaxkd.report import collection, early_exit, early_exit_tables
from jaxkd.report.write import sections, write


def point(setting, milliseconds, score, calibration_score, share):
    return {
        "setting": setting, "milliseconds": {"1": milliseconds, "32": milliseconds / 2},
        "millijoules": {"1": 10 * milliseconds, "32": 5 * milliseconds},
        "score": score, "calibration_score": calibration_score,
        "calibration_expected_milliseconds": milliseconds, "expected_milliseconds": milliseconds,
        "share": share, "slowest_batch": {"1": 2 * milliseconds, "32": milliseconds},
    }  # fmt: skip


def optimal(*numbers):
    policy = {"policy_quality": 0.9, "calibration_quality": 0.89, "quality": 0.88,
              "policy_milliseconds": 2.0}  # fmt: skip
    return point(*numbers) | policy


def results(corpus="RTE", full=0.80):
    model = {"layers": 2, "milliseconds": {"1": 4.0, "32": 2.0}, "score": full,
             "millijoules": {"1": 40.0, "32": 20.0}, "calibration_score": 0.81}  # fmt: skip
    short = {"layers": 1, "milliseconds": {"1": 2.0, "32": 1.0}, "score": 0.75,
             "millijoules": {"1": 20.0, "32": 10.0}, "calibration_score": 0.76}  # fmt: skip
    run = {
        "model": "exits", "full": "full", "split": "validation", "metric": "accuracy",
        "no_energy": "this system has no energy counters",
        "calibration_split": "calibration", "calibration_rows": 100, "rows": 200,
        "timed_rows": 64, "layers": 2, "exits": [1, 2], "exit_scores": [0.6, 0.8],
        "exit_milliseconds": [2.0, 4.2], "models": {"full": model, "half": short},
        "rules": {
            "patience": [
                # Better on the evaluated rows, worse on those for the choice: not taken.
                point("patience 1", 2.0, 0.82, 0.70, [1.0, 0.0]),
                point("patience 2", 3.0, 0.79, 0.806, [0.5, 0.5]),
            ],
            "optimal_stopping": [optimal("price 0", 4.0, 0.8, 0.81, [0.0, 1.0]),
                                 optimal("price 1", 2.5, 0.77, 0.808, [0.75, 0.25])],
        },
    }  # fmt: skip
    numbers = {"seeds": {"0": {"validation": {"accuracy": full}}}}
    return {
        "experiment": "early_exit", "variant": corpus.lower(), "title": corpus, "command": "",
        "seeds": [0], "models": {"full": numbers, "exits": numbers}, "primary": "accuracy",
        "metrics": {
            "accuracy": {"title": "accuracy", "unit": "%", "higher_is_better": True}
        },
        "data": {"corpus": corpus, "rows": {"train": 2, "validation": 200}},
        "early_exit": {"stage": {"0": run}}, "report": {"labels": {"full": "the whole model"}},
        "where": {}, "stages": {},
    }  # fmt: skip


def test_settings_are_chosen_on_the_calibration_rows():
    run = early_exit.measured(results(), "stage")[0]
    assert early_exit.at_equal_score(run, "patience")["setting"] == "patience 2"
    assert early_exit.at_equal_score(run, "optimal_stopping")["setting"] == "price 1"
    # 1.5 times as fast as 4 ms are 2.7 ms.
    assert early_exit.at_equal_time(run, "patience", "1")["setting"] == "patience 1"
    run["models"]["full"]["calibration_score"] = 0.99
    assert early_exit.at_equal_score(run, "patience") is None


def test_the_table_has_scores_times_and_speeds_in_their_units():
    every = results()
    runs = early_exit.measured(every, "stage")
    table = early_exit_tables.settings_table(every, runs, early_exit.at_equal_score, "")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["the whole model"] == ("–", "80.00", "2", "4.000", "2.000", "1.000", "1.000")
    assert rows["patience"] == ("patience 2", "79.00", "1.500", "3.000", "1.500", "1.333", "1.333")
    assert rows["half"][-1] == "2.000"


def test_energy_is_in_the_table_or_the_report_says_why_not():
    every = results()
    runs = early_exit.measured(every, "stage")
    why = "Energy was not measured: this system has no energy counters."
    assert why in early_exit_tables.introduction(every, runs)
    runs[0]["no_energy"] = ""
    table = early_exit_tables.settings_table(every, runs, early_exit.at_equal_score, "", ("32",))
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.header[-1] == "mJ a row, batch 32"
    assert rows["the whole model"][-1] == "20.00" and rows["patience"][-1] == "15.00"
    assert "not measured" not in early_exit_tables.introduction(every, runs)
    whole = runs[0]["models"]["full"]
    whole["calibration_score"] = 0.99  # no setting is left: a row of dashes
    table = early_exit_tables.settings_table(every, runs, early_exit.at_equal_score, "")
    assert {len(row) for row in table.rows} == {len(table.header)}


def test_the_area_is_that_of_the_setting_the_calibration_rows_prefer():
    points = results()["early_exit"]["stage"]["0"]["rules"]["patience"]
    # From 2 to 3 ms patience 1 with 0.82; then patience 2, which looked better, with 0.79.
    assert early_exit.area(points, "1", 2.0, 4.0) == pytest.approx((0.82 + 0.79) / 2)
    assert early_exit.area(points, "1", 1.0, 4.0) is None  # nothing is as fast as 1 ms


def test_a_report_and_a_collection_show_it(tmp_path):
    heading = [section.heading for section in sections(results())]
    assert heading[1] == "Early exit: exits"
    write(results(), tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "(stage-score-over-time.png)" in report and "64 of them" in report
    assert "| price 1 | 0.900 | 0.890 | 0.880 | 2.000 | 2.500 | 2.500 | 5.000 |" in report


def test_a_student_is_compared_with_the_best_setting_as_fast_as_it():
    run = early_exit.measured(results(), "stage")[0]
    # Price 1 takes 1.25 ms at batch 32, the student 1.0: patience 1 alone is as fast.
    assert early_exit.at_speed_of(run, "optimal_stopping", "half", "32") is None
    assert early_exit.at_speed_of(run, "patience", "half", "32")["setting"] == "patience 1"
    run["models"]["half"]["milliseconds"]["32"] = 1.24  # 2% slower is as fast
    assert early_exit.at_speed_of(run, "optimal_stopping", "half", "32")["score"] == 0.77
    assert early_exit.best_so_far(run, "optimal_stopping", "32", 0.5) is None
    assert early_exit.best_so_far(run, "optimal_stopping", "32", 0.7) == 0.77
    assert early_exit.best_so_far(run, "optimal_stopping", "32", 1.0) == 0.8


def test_who_wins_at_a_students_speed_is_in_the_collection(tmp_path):
    fast, slow = results("RTE"), results("MRPC")
    for each, milliseconds in ((fast, 1.24), (slow, 1.0)):
        models = each["early_exit"]["stage"]["0"]["models"]
        models["half"]["milliseconds"]["32"] = milliseconds
    collection.write([fast, slow], tmp_path, "Two")
    report = (tmp_path / "report.md").read_text()
    assert "| RTE | accuracy | half | 75.00 | 77.00 | 2.000 | early exit |" in report
    assert "| MRPC | accuracy | half | 75.00 | – | – | the student |" in report
    assert (tmp_path / "early-exit-score-over-time.png").stat().st_size > 1000
    assert "data:image/png;base64" in (tmp_path / "report.html").read_text()


def test_means_over_data_sets_are_of_points_and_of_all_rules(tmp_path):
    cola = results("CoLA", 0.6)
    cola["metrics"] = {"mcc": {"title": "MCC", "unit": "", "higher_is_better": True}}
    cola["early_exit"]["stage"]["0"]["metric"] = cola["primary"] = "mcc"
    stsb = results("STS-B", 0.9)
    del stsb["early_exit"]["stage"]["0"]["rules"]["patience"]  # as a rule of classes alone
    collection.write([results(), cola, stsb], tmp_path, "Three")
    report = (tmp_path / "report.md").read_text()
    scores = report[report.index("## Early exit: scores") :]
    assert "| CoLA | MCC | 60.00 | 79.00 | 77.00 | 75.00 |" in scores
    # (80 + 60 + 90) / 3; of the two that have every rule 70
    assert "| mean of all |  | 76.67 | – | 77.00 | 75.00 |" in scores
    assert "| mean of 2 |  | 70.00 | 79.00 | 77.00 | 75.00 |" in scores
    speeds = report[report.index("## Early exit: times as fast") :]
    assert "| mean of 2 |  | 1.000 | 1.333 | 1.600 | 2.000 |" in speeds
