"""One table of several results files."""

import json

import pytest

from jaxkd.report import collection


def results(corpus: str, metric: str, *values: float, embedded: bool = False) -> dict:
    described = {
        "accuracy": {
            "title": "accuracy", "unit": "%", "higher_is_better": True
        },
        "loss": {"title": "loss", "unit": "nats", "higher_is_better": False},
    }  # fmt: skip
    numbers = {
        str(seed): {"validation": {metric: value, "loss": 1.0}} for seed, value in enumerate(values)
    }
    return {
        "experiment": "glue", "variant": corpus.lower(), "title": corpus,
        "command": "python run.py",
        "seeds": list(range(len(values))), "metrics": described, "primary": metric,
        "models": {"teacher": {"seeds": numbers}},
        "data": {"corpus": corpus, "rows": {"train": 2490, "validation": 277}, "embedded": embedded,
                 "notes": [f"{corpus} has no training file"]},
        "stages": {"teacher": {"seconds": {"0": 60.0, "1": 30.0}}},
        "where": {"devices": 1, "device": "cpu", "processor": "a processor", "versions": {}},
        "report": {"labels": {"teacher": "the teacher"}},
    }  # fmt: skip


def test_a_row_for_each_data_set(tmp_path):
    every = [results("RTE", "accuracy", 0.5, 0.7), results("WNLI", "accuracy", 0.25)]
    files = [tmp_path / f"{i}.json" for i in range(2)]
    for file, each in zip(files, every, strict=True):
        file.write_text(json.dumps(each))
    collection.main([*map(str, files), "--folder", str(tmp_path / "out"), "--title", "Two tasks"])
    report = (tmp_path / "out/report.md").read_text()
    rows = [line for line in report.splitlines() if line.startswith("| RTE, validation")]
    assert len(rows) == 1 and "| 2,490 | 277 |" in rows[0] and "| 2 |" in rows[0]
    # mean of 50 and 70, and their sample standard deviation: 14.14
    assert "accuracy [%]" in rows[0] and "| 60 ± 14 |" in rows[0]
    assert "RTE has no training file" in report and "WNLI has no training file" in report
    assert (tmp_path / "out/report.html").read_text().startswith("<!DOCTYPE html>")
    again = json.loads((tmp_path / "out/glue-rte.json").read_text())
    assert again == every[0]


def test_originals_stand_beside_the_runs_that_read_their_data(tmp_path):
    every = [results("RTE", "accuracy", 0.5, 0.7), results("WNLI", "accuracy", 0.25)]
    for each in every:
        each["data"]["expected_corpus"] = each["data"]["corpus"]
    every[0]["report"] |= {
        "references": [
            {"what": "MiniLM, rte", "original": 0.689, "model": "teacher", "metric": "accuracy"}
        ],
        "reference_source": "A paper (2020)",
    }
    table = collection.references(every)
    assert [row[:2] for row in table.rows] == [("MiniLM, rte", "68.9")]
    assert "60 ± 14" in table.rows[0][2] and "A paper (2020)" in table.caption
    collection.write(every, tmp_path, "Two")
    assert "## Beside the originals" in (tmp_path / "report.md").read_text()
    every[0]["data"]["corpus"] = "my.csv"  # not the original's data
    assert not collection.references(every).rows


def test_a_stand_in_is_named(tmp_path):
    table = collection.table([results("RTE", "accuracy", 0.5, embedded=True)], "x")
    assert "stand-in" in table.caption


@pytest.mark.parametrize("content", ["[]", "{", '{"models": 3}'])
def test_other_files_are_refused(content, tmp_path, capsys):
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(SystemExit):
        collection.main([str(file), "--folder", str(tmp_path / "out")])
    assert "is no results file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_seeds_of_several_runs_become_one_row(tmp_path):
    # Two machines, one seed each: the accuracies of one run of both.
    both = results("RTE", "accuracy", 0.5, 0.7)
    one, two = json.loads(json.dumps(both)), json.loads(json.dumps(both))
    for run, seed in ((one, "0"), (two, "1")):
        run["seeds"], run["command"] = [int(seed)], f"python run.py --config.seeds=({seed},)"
        run["models"]["teacher"]["seeds"] = {seed: both["models"]["teacher"]["seeds"][seed]}
        run["models"]["teacher"]["layers"] = 3 + int(seed)
        run["stages"]["teacher"]["seconds"] = {seed: both["stages"]["teacher"]["seconds"][seed]}
    files = [tmp_path / f"{i}.json" for i in range(2)]
    for file, each in zip(files, (one, two), strict=True):
        file.write_text(json.dumps(each))
    collection.main([*map(str, files), "--folder", str(tmp_path / "out")])
    rows = collection.table([both], "").rows
    written = json.loads((tmp_path / "out/glue-rte.json").read_text())
    assert written["seeds"] == [0, 1] and written["models"]["teacher"]["layers"] == [3, 4]
    assert collection.table([written], "").rows == rows and rows[0][-1] == "60 ± 14"
    ran = collection.conditions([written]).rows
    assert [(row[1], row[-1]) for row in ran] == [("60", one["command"]), ("30", two["command"])]
    # Rendered again from its copy: the same.
    collection.main([str(tmp_path / "out/glue-rte.json"), "--folder", str(tmp_path / "again")])
    assert (tmp_path / "again/report.md").read_text() == (tmp_path / "out/report.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [0]}, "seed 0 is in two of the files"),
        ({"data": {"corpus": "RTE", "rows": {"train": 7}}}, "data.rows.train: '2490' and '7'"),
    ],
)
def test_seeds_of_other_runs_are_not_joined(tmp_path, capsys, change, message):
    one, two = results("RTE", "accuracy", 0.5), results("RTE", "accuracy", 0.7)
    files = [tmp_path / f"{i}.json" for i in range(2)]
    for file, each in zip(files, (one, two | {"seeds": [1]} | change), strict=True):
        file.write_text(json.dumps(each))
    with pytest.raises(SystemExit):
        collection.main([*map(str, files), "--folder", str(tmp_path / "out")])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
