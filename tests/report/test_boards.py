"""The table of what boards measured says what `run_device.py --bench` printed."""

import json
import pathlib
import subprocess
import sys

import pytest

from jaxkd.export.bundle.files import annotate
from jaxkd.report import boards
from jaxkd.report.markup import markdown
from tests.device import bundles

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board") / "b"
    bundles.classifier(folder)
    scores = {"metric": "accuracy", "score": 0.875, "rows": 1024}
    annotate(folder, "measured", {"other": {}, "bundle": scores})
    annotate(folder, "measured_as", "bundle")
    command = [sys.executable, str(folder / "run_device.py"), "--ids", "1,2,3", "--bench",
               "--seconds", "0.2", "--watts", "5"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    file = folder.parent / "board.json"
    file.write_text(done.stdout)
    return file


def test_a_row_says_model_machine_time_memory_energy_and_score(benched, capsys):
    boards.main([str(benched)])
    header, _, row, *_ = capsys.readouterr().out.splitlines()
    cells = dict(
        zip(*([c.strip() for c in line.split("|")[1:-1]] for line in (header, row)), strict=True)
    )
    measured = json.loads(benched.read_text())
    assert cells["model"] == "bert, sequence classification, 4 x 32"
    assert cells["weights"] == "float32"
    assert cells["score"] == "0.875 accuracy, 1,024 rows"
    assert float(cells["ms p50"]) == pytest.approx(measured["milliseconds"]["p50"], rel=0.01)
    assert float(cells["peak MB"]) == pytest.approx(measured["memory"]["peak"] / 1e6, rel=0.01)
    # A meter's 5 watts and the milliseconds of a text; or this machine's own sensor.
    joules = measured["energy"]["joules"]
    if measured["energy"]["sensor"] == "external meter":
        assert joules == pytest.approx(5 * measured["milliseconds"]["mean"] / 1000)
    assert float(cells["mJ a text"].replace(",", "")) == pytest.approx(1000 * joules, rel=0.01)


def test_other_files_are_refused(benched, tmp_path, capsys):
    for content, message in (("{}", "lacks machine"), ("[1]", "lacks machine"), ("x", "be read")):
        (tmp_path / "b.json").write_text(content)
        with pytest.raises(SystemExit):
            boards.main([str(benched), str(tmp_path / "b.json")])
        assert message in capsys.readouterr().err


def test_the_docs_have_the_table_of_the_files_beside_them():
    every = [boards.read(file) for file in sorted((ROOT / "docs" / "boards").glob("*.json"))]
    assert every
    assert markdown(boards.table(every)).strip() in (ROOT / "docs" / "jetson.md").read_text()
