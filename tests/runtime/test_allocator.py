"""The restart keeps the process, its words and its standard streams, and happens once."""

import os
import platform
import subprocess
import sys

import pytest

from jaxkd.runtime.allocator import KEEP, VARIABLE

PROGRAM = f"""
import os, sys
from jaxkd.runtime.allocator import restart_keeping
print("here", os.getpid())
restart_keeping()
print(os.getpid(), sys.argv[1:], sys.flags.utf8_mode, os.environ.get({VARIABLE!r}), input())
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own switches")


def run(tmp_path, **environment) -> tuple[int, list[str]]:
    (tmp_path / "program.py").write_text(PROGRAM)
    clean = {name: value for name, value in os.environ.items() if name != VARIABLE}
    process = subprocess.Popen(
        [sys.executable, "-X", "utf8", tmp_path / "program.py", "two words", "--x=1"],
        env=clean | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate("typed\n", timeout=60)
    return process.pid, output.splitlines()


def test_the_program_starts_again_as_the_same_process(tmp_path):
    pid, output = run(tmp_path)
    assert output[:2] == [f"here {pid}", f"here {pid}"]
    assert output[2] == f"{pid} ['two words', '--x=1'] 1 {KEEP} typed"
    assert len(output) == 3


@pytest.mark.parametrize("setting", ["", "glibc.malloc.check=0"])
def test_what_the_user_set_stays(tmp_path, setting):
    pid, output = run(tmp_path, **{VARIABLE: setting})
    assert output == [f"here {pid}", f"{pid} ['two words', '--x=1'] 1 {setting} typed"]
