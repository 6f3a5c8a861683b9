"""Older Pythons with the onnxruntime that a board has, in environments of their own."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

OLD = {  # name -> version, packages, and the environment variable that names such a Python
    "python3.6": ("3.6", ("onnxruntime==1.10.0", "numpy==1.19.5"), "JAXKD_PYTHON36"),
    "python3.10": ("3.10", ("onnxruntime==1.23.2", "numpy==2.2.6"), "JAXKD_PYTHON310"),
}


def interpreter(version: str, variable: str) -> str | None:
    """A Python of that version: by the variable, on the PATH, or of pyenv."""
    roots = [os.environ.get("PYENV_ROOT"), pathlib.Path.home() / ".pyenv"]
    candidates = [os.environ.get(variable), shutil.which(f"python{version}")]
    for root in filter(None, roots):
        candidates += sorted(map(str, pathlib.Path(root).glob(f"versions/{version}.*/bin/python")))
    for candidate in filter(None, candidates):
        command = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


def make(name: str, folder: pathlib.Path) -> str:
    """The Python of a new environment; skips where there is none, or nothing can be installed."""
    if name == "this":
        return sys.executable
    version, packages, variable = OLD[name]
    python = interpreter(version, variable)
    if python is None:
        pytest.skip(f"no Python {version} (${variable}, PATH, pyenv)")
    subprocess.run([python, "-m", "venv", folder], check=True, capture_output=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    # The pip that Python 3.6 brings knows no wheel of these packages; 21 is its last.
    newer = [("pip>=21,<22",)] if version == "3.6" else []
    for needed in (*newer, packages):
        done = subprocess.run([*pip, *needed], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{' '.join(needed)} cannot be installed: {done.stderr.strip()[-200:]}")
    return python
