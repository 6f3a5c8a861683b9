"""What results/ and its README say is what the results files hold."""

import json
import pathlib

import pytest

from jaxkd.report import collection, markup
from jaxkd.report.write import summary, write

ROOT = pathlib.Path(__file__).parents[2]
COMMITTED = sorted(ROOT.glob("results/*/results.json"))


def test_there_are_results():
    assert COMMITTED


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.parent.name)
def test_the_committed_report_is_made_from_its_results(file, tmp_path):
    write(json.loads(file.read_text()), tmp_path)
    assert (tmp_path / "report.md").read_text() == (file.parent / "report.md").read_text()
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {path.name for path in file.parent.iterdir()} - {"results.json"}


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.parent.name)
def test_the_readme_shows_the_table_of_the_results(file):
    readme = (ROOT / "results" / "README.md").read_text()
    assert summary(json.loads(file.read_text())).strip() in readme
    assert f"({file.parent.name}/report.md)" in readme


COLLECTIONS = sorted(
    folder
    for folder in ROOT.glob("results/*")
    if folder.is_dir() and not (folder / "results.json").exists()
)


@pytest.mark.parametrize("folder", COLLECTIONS, ids=lambda folder: folder.name)
def test_the_committed_collection_is_made_from_its_results(folder, tmp_path):
    every = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    report = (folder / "report.md").read_text()
    title = report.partition("\n")[0].removeprefix("# ")
    collection.write(every, tmp_path, title)
    assert (tmp_path / "report.md").read_text() == report
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in folder.iterdir()}
    readme = (ROOT / "results" / "README.md").read_text()
    assert markup.markdown(collection.table(every, title)).strip() in readme
    assert f"({folder.name}/report.md)" in readme
