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

import jax

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.imported"])


class Program:
    """A started program; used as a `subprocess.Popen` of text."""

    def __init__(
        self, words: Sequence[str], cwd: pathlib.Path, env: Mapping[str, str], *, merged: bool
    ):
        self._folder = tempfile.TemporaryDirectory()
        self._files = [pathlib.Path(self._folder.name) / name for name in ("out", "err")]
        self._read: tuple[str, str] | None = None
        if merged:
            self._files[1] = self._files[0]
        # Otherwise run.py would execute the server again, to set it (runtime/allocator.py).
        env = {"GLIBC_TUNABLES": ""} | dict(env)
        arguments = (list(words), str(cwd), env, list(map(str, self._files)))
        self._process = _CONTEXT.Process(target=_run, args=arguments)
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float = 900) -> tuple[str, str]:
        """What it wrote, once it has ended.

        Raises:
          subprocess.TimeoutExpired: if it has not; it is killed.
        """
        if self._read is None:
            self._process.join(timeout)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
                raise subprocess.TimeoutExpired(str(self._files[0]), timeout)
            out, err = (file.read_text() if file.exists() else "" for file in self._files)
            self._read = out, "" if self._files[0] == self._files[1] else err
            self._folder.cleanup()
        return self._read


def start_program(words: Sequence[str], cwd: pathlib.Path, env: Mapping[str, str]) -> Program:
    """As `subprocess.Popen([sys.executable, *words], stdout=PIPE, stderr=STDOUT, text=True)`.

    Variables that JAX and HuggingFace's libraries read when they are imported are those that the
    first caller had; JAX_PLATFORMS is the program's own.
    """
    return Program(words, cwd, env, merged=True)


def run_program(
    words: Sequence[str], cwd: pathlib.Path, env: Mapping[str, str], timeout: float = 900
) -> subprocess.CompletedProcess:
    """As `subprocess.run([sys.executable, *words], capture_output=True, text=True)`."""
    program = Program(words, cwd, env, merged=False)
    out, err = program.communicate(timeout)
    return subprocess.CompletedProcess(list(words), program.returncode, out, err)


def _run(words: list[str], cwd: str, env: dict[str, str], files: list[str]) -> None:
    for descriptor, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.environ.clear()
    os.environ.update(env)
    if "JAX_PLATFORMS" in env:
        jax.config.update("jax_platforms", env["JAX_PLATFORMS"])
    os.chdir(cwd)
    sys.argv = words
    sys.path.insert(0, str(pathlib.Path(words[0]).resolve().parent))
    runpy.run_path(words[0], run_name="__main__")
