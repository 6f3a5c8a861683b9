"""This project's programs in processes of their own that need not import the libraries again.

Importing JAX, torch and transformers takes longer than many of the runs that tests start. A server
process imports them once; each program runs in a fork of it, in which nothing but the imports has
happened.
"""

import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.imported"])


def run_program(
    words: Sequence[str], cwd: pathlib.Path, env: Mapping[str, str], timeout: float = 900
) -> subprocess.CompletedProcess:
    """As `subprocess.run([sys.executable, *words], capture_output=True, text=True)`.

    Variables that JAX and HuggingFace's libraries read when they are imported are those that the
    first caller had.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder) / name for name in ("out", "err")]
        # Otherwise run.py would execute the server again, to set it (runtime/allocator.py).
        child_env = {"GLIBC_TUNABLES": ""} | dict(env)
        arguments = (list(words), str(cwd), child_env, list(map(str, files)))
        process = _CONTEXT.Process(target=_run, args=arguments)
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(words), timeout)
        out, err = (file.read_text() for file in files)
        return subprocess.CompletedProcess(list(words), process.exitcode, out, err)


def _run(words: list[str], cwd: str, env: dict[str, str], files: list[str]) -> None:
    for descriptor, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = words
    sys.path.insert(0, str(pathlib.Path(words[0]).resolve().parent))
    runpy.run_path(words[0], run_name="__main__")
