"""Every family's bundle answers as JAX does, under each Python and onnxruntime that a board has."""

import functools
import json
import pathlib
import subprocess

import pytest

from tests.device import bundles, pythons

ROOT = pathlib.Path(__file__).parents[2]
# Each bundle with all weights resident, in one session and a session each, mapped, and streamed.
CHECK = """
import json, sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import onnxruntime
from jaxkd.device.bundle import Bundle
differences = {}
for folder in sys.argv[2:]:
    bundle = Bundle(folder)
    for tier, room in (("resident", None), ("resident", 0), ("mapped", 0), ("streamed", 0)):
        bundle.place([tier] * len(bundle.blocks), room)
        assert {block.tier for block in bundle.blocks} == {tier}
        if room == 0:
            assert all(len(g) == 1 for stack, _ in bundle.model.stacks for g in stack.groups)
        differences["%s %s %s" % (folder, tier, room)] = bundle.reference_difference()
print(json.dumps([onnxruntime.__version__, differences]))
"""
VERSIONS = {"python3.6": "1.10.0", "python3.10": "1.23.2"}
ALLOWED = {"float32": 1e-4, "float16": 0.05, "int8": 1.0}  # logits of magnitude 1 to 5


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("bundles"), []
    seen = set()
    for family, head in bundles.KINDS:
        config = bundles.config_of(family, head)
        # Heads in float32; blocks are the same under every head, so once in the other kinds.
        kinds = ("float32",) if family in seen else ("float32", "float16", "int8")
        seen.add(family)
        for weights in kinds:
            made.append(root / f"{family}.{head}.{weights}")
            bundles.write(made[-1], config, weights)
    return made


@pytest.fixture(scope="module")
def python_of(tmp_path_factory):
    """The interpreter of a name; an environment is made once."""
    return functools.cache(lambda name: pythons.make(name, tmp_path_factory.mktemp(name) / "venv"))


@pytest.mark.slow
@pytest.mark.parametrize("python", ["this", *pythons.OLD])
def test_answers_are_those_of_jax(python, folders, python_of):
    command = [python_of(python), "-c", CHECK, str(ROOT), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    version, differences = json.loads(done.stdout)
    assert version == VERSIONS.get(python, version)
    assert len(differences) == 4 * len(folders)
    for name, difference in differences.items():
        weights = name.split()[0].rsplit(".", 1)[1]
        assert difference <= ALLOWED[weights], (name, difference)


@pytest.mark.slow
@pytest.mark.parametrize("python", pythons.OLD)
def test_the_command_answers_there(python, python_of, tmp_path):
    bundles.classifier(tmp_path / "b")
    command = [
        python_of(python),
        str(tmp_path / "b" / "run_device.py"),
        "--ids",
        "1,2,3,4",
        "--json",
    ]
    for more in ([], ["--patience", "1"], ["--lambda", "0.2"], ["--window", "--threads", "1"]):
        done = subprocess.run([*command, *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert abs(sum(answer["scores"].values()) - 1) < 1e-5
    bench = subprocess.run(
        [*command, "--bench", "--seconds", "0.2"], capture_output=True, text=True
    )
    measured = json.loads(bench.stdout)
    assert measured["blocks"] == {"4": measured["inferences"]}
    assert measured["memory"]["peak"] > 0 and len(measured["memory_by_layer"]) == 4
    assert measured["energy"]["joules"] is None or measured["energy"]["readings"] >= 50
