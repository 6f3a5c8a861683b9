"""What a results file says of the code that made it, and of its terms."""

import subprocess

import pytest

from configs import recipes
from jaxkd.distil.terms import SquaredError
from jaxkd.runs import results
from jaxkd.runs.experiment import Experiment
from jaxkd.stages.train import Train


def git(folder, *words):
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    return subprocess.run(
        ["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A project of its own with the file that asks, an experiment, and a note."""
    for name in ("jaxkd/runs/results.py", "experiments/one.py", "notes.txt", ".gitignore"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("runs/own.py\n" if name == ".gitignore" else "")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-f", ".")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(results, "__file__", str(tmp_path / "jaxkd/runs/results.py"))
    return tmp_path


def test_a_clean_tree_is_its_commit(tree):
    assert results.revision() == git(tree, "rev-parse", "--short=12", "HEAD")
    (tree / "plot.png").write_text("")  # no code
    assert not results.revision().endswith("+")


@pytest.mark.parametrize(
    "file", ["experiments/one.py", "notes.txt", "experiments/new.py", "configs/new.py"]
)
def test_any_changed_file_and_any_new_python_file_is_marked(tree, file):
    (tree / file).parent.mkdir(exist_ok=True)
    (tree / file).write_text("changed")
    assert results.revision() == git(tree, "rev-parse", "--short=12", "HEAD") + "+"


def test_code_installed_inside_another_project_has_no_revision_of_it(tree, monkeypatch):
    installed = tree / "venv" / "results.py"
    installed.parent.mkdir()
    installed.write_text("")
    monkeypatch.setattr(results, "__file__", str(installed))
    assert results.revision() == "unknown"


def test_terms_say_their_unit_or_are_in_nats_if_they_compare_predictions():
    student = Train(teacher="t", source="s", terms=recipes.distilbert() | {"score": SquaredError()})
    described = results.terms(
        Experiment(title="", data=None, stages={"student": student, "x": object()})
    )
    units = {name: each["unit"] for name, each in described["student"].items()}
    assert units["soft_targets"] == "nats" and units["cosine"] == "" and units["score"] == ""
    assert list(described) == ["student"]
