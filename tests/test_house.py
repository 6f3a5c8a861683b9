"""The house's rules: which room may import what."""

import ast
import pathlib
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FLOORS = {
    "core": 0, "runtime": 0, "device": 0,
    "models": 1, "losses": 1, "metrics": 1, "data": 1,
    "hub": 2, "checkpoint": 2, "decode": 2, "exits": 2,
    "distil": 3, "train": 3,
    "evaluate": 4, "export": 4,
    "report": 5, "tasks": 5,
    "runs": 6, "search": 6,
    "stages": 7,
}  # fmt: skip
TOP = {"__init__.py": False, "predict.py": True}  # files in no room: whether they hold code
FENCES = {  # third-party package -> the rooms that may import it
    "flax": {"models"},
    "tensorflow_datasets": {"data"},
    "grain": {"data"},
    "array_record": {"checkpoint"},
    "safetensors": {"hub"},
    "orbax": {"checkpoint"},
    "torch": {"export", "hub"},  # hub: to read checkpoints in torch's own format
    "onnx": {"export"},
    "onnxruntime": {"export", "device"},
    "matplotlib": {"report"},
    "sacrebleu": {"metrics"},
    "rouge_score": {"metrics"},
    "nltk": {"metrics"},
    "ml_collections": {"runs"},
    "optax": {"distil", "train", "losses", "search"},
    "optuna": {"search"},
}
FILES = sorted((ROOT / "jaxkd").rglob("*.py"))


def imports(file: pathlib.Path) -> set[str]:
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return imported


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_room_imports_only_from_lower_floors_and_stays_inside_its_fences(file):
    path = file.relative_to(ROOT / "jaxkd").parts
    if len(path) == 1:
        assert path[0] in TOP, f"{path[0]} belongs into a room"
        assert bool(file.read_text()) == TOP[path[0]], "jaxkd/__init__.py is empty"
        return
    room = path[0]
    assert room in FLOORS, f"{room} is not in the table of rooms"
    for name in imports(file):
        top, *rest = name.split(".")
        if top == "jaxkd" and rest and rest[0] != room:
            assert FLOORS[rest[0]] < FLOORS[room], f"{room} imports {name}"
        assert room in FENCES.get(top, {room}), f"{room} imports {top}"


def test_the_runner_of_a_device_needs_only_numpy_and_onnxruntime():
    for file in (ROOT / "jaxkd" / "device").glob("*.py"):
        for name in imports(file):
            top = name.split(".")[0]
            own = name.startswith("jaxkd.device") or name == "jaxkd"
            assert own or top in {"numpy", "onnxruntime"} | sys.stdlib_module_names, (file, name)


def test_the_report_needs_no_jax():
    for file in (ROOT / "jaxkd" / "report").rglob("*.py"):
        for name in imports(file):
            assert name.split(".")[0] not in {"jax", "flax", "optax", "chex"}, file
            if name.startswith("jaxkd.") and not name.startswith("jaxkd.report"):
                assert name.startswith("jaxkd.core.names"), f"{file} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_file_opens_with_what_it_is_and_has_at_most_400_lines(file):
    text = file.read_text()
    assert text.count("\n") <= 400
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "no opening sentence"


def test_nothing_is_called_a_helper():
    for file in FILES:
        assert file.stem not in {"utils", "util", "common", "helpers", "misc"}


def test_shapes_are_checked_in_every_package_that_has_them():
    options = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["tool"]["pytest"]
    words = options["ini_options"]["addopts"].split()
    (listed,) = (w.partition("=")[2].split(",") for w in words if w.startswith("--jaxtyping"))
    with_shapes = {
        f"jaxkd.{file.relative_to('jaxkd').parts[0]}"
        for file in pathlib.Path("jaxkd").rglob("*.py")
        if "jaxtyping" in {name.partition(".")[0] for name in imports(file)}
    }
    assert with_shapes <= set(listed)
