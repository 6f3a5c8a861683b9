"""Interleaved timing of programs that each live in a process of their own.

A peer is this interpreter running a script with `--serve NAME`; it reads one line a round on
standard input, answers with one line of JSON, and never runs while another one does.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxkd.runtime.allocator import keeping

BASELINE = "baseline"
# What suits torch: it pays for page faults too, but is slower with one arena and huge pages (seen
# at size small, in two runs of different minutes: 4.9 s a step with them, 3.1 s without).
TORCH = {
    "GLIBC_TUNABLES": "",
    "MALLOC_MMAP_THRESHOLD_": "17179869184",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}


class Peer:
    """A server process; `ask` sends a line and waits for the answer.

    With `checkout` it is that checkout's script and package that run, under the name `baseline`.
    """

    def __init__(
        self, script: str, name: str, words: Sequence[str], threads: int, *, checkout: str = ""
    ):
        # Each with the allocator's settings that are best for it; "plain": as a user starts it.
        env = os.environ | TORCH if name.startswith("torch") else keeping(os.environ)
        env = dict(os.environ) if name.endswith("plain") else env
        env = env | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "0"}
        # Peers share an accelerator's memory.
        env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        self.name = BASELINE if checkout else name
        self._timer: threading.Timer | None = None
        if checkout:
            script = str(pathlib.Path(checkout) / "benchmarks" / pathlib.Path(script).name)
            env["PYTHONPATH"] = checkout
        self._process = subprocess.Popen(
            [sys.executable, script, "--serve", name, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        # XLA starts a thread a core, whatever OMP_NUM_THREADS says; it has not begun yet. In the
        # child it would need a fork, which is unsafe beside JAX's threads.
        os.sched_setaffinity(self._process.pid, sorted(os.sched_getaffinity(0))[:threads])

    def ask(self, line: str) -> dict[str, Any]:
        answer = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of {self.name} died: {self._process.wait()}")
        return json.loads(answer)

    def kill_after(self, seconds: float) -> None:
        """Ends the process if it still runs then; what is asked of it raises RuntimeError."""
        self._timer = threading.Timer(max(0.0, seconds), self._process.kill)
        self._timer.daemon = True
        self._timer.start()

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        if self._timer is not None:
            self._timer.cancel()


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks of peers have, those of a peer's own process too."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds that count")
    parser.add_argument("--steps", type=int, default=2, help="steps a peer runs in each round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    return parser


def torch_device() -> str:
    """cuda where torch finds one, as jax takes it too; else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def torch_waits() -> Callable[[], None]:
    """What waits until torch has done what was queued."""
    import torch

    return torch.cuda.synchronize if torch.cuda.is_available() else lambda: None


def give_back() -> None:
    """What torch keeps of an accelerator's memory, for the next peer."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def matmul_error() -> float:
    """Relative error of torch's matrix products as it is set: float32 has about 1e-7."""
    import torch

    a, b = torch.randn(2, 512, 512, device=torch_device())
    exact = a.double() @ b.double()
    return float((a @ b - exact).norm() / exact.norm())


def fast_float32() -> None:
    """torch's fastest products of float32: by oneDNN ("medium"), where that computes in float32.

    On an accelerator both sides multiply in float32 itself: the programs of jax call
    `jax_float32`.
    """
    import torch

    if torch_device() != "cpu":  # by default, TensorFloat-32 is left out
        return
    torch.set_float32_matmul_precision("medium")
    if matmul_error() > 1e-6:  # a CPU with bfloat16 tiles takes them
        torch.set_float32_matmul_precision("highest")


def jax_float32() -> None:
    """No TensorFloat-32 in products of float32, which is what jax takes on a GPU."""
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")


def peak_bytes(step: Callable[[], Any]) -> int:
    """Most memory that a step of torch, or of anything on a CPU, holds beyond what is held before.

    Its results count. torch's allocator tells it of an accelerator. On a CPU it is the growth of
    the resident memory, once what is free was given back. Linux with glibc.
    """
    step()
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = _status("VmRSS")
    step()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    with open("/proc/self/status") as lines:
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


def agree(
    results: Mapping[str, Mapping[str, float]],
    ours: str,
    tolerance: float = 1e-4,
    *,
    exact: bool = True,
    unlike: Sequence[str] = (),
) -> None:
    """Refuse to time steps that do not compute the same.

    Args:
      tolerance: relative; of a `..._probe`, which belongs to a gradient of norm 1, absolute.
      exact: products must be those of float32.
      unlike: names that may be further away; how far is printed.
    """
    for name, numbers in results.items():
        for key, reference in results[ours].items():
            size = 1.0 if key.endswith("_probe") else max(abs(reference), 1e-2)
            if abs(numbers[key] - reference) > tolerance * size:
                what = f"{name} computes another step: {key} is {numbers[key]}, ours {reference}"
                if name not in unlike:
                    sys.exit(what)
                print(what)
        if exact and numbers.get("matmul_error", 0) > 1e-6:
            sys.exit(
                f"{name}: matrix products are off by {numbers['matmul_error']:.1e}: not float32"
            )


def serve(check: Any, time_steps: Any, memory: Any = None) -> None:
    """Answer `check`, `time N` and `memory` until the input ends; prints of libraries to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "time":
            results = time_steps(int(rest[0]))
        else:
            results = check() if word == "check" else memory()
        give_back()
        answers.write(json.dumps(results) + "\n")
        answers.flush()


def timed(run: Callable[[], Any]) -> Callable[[int], dict[str, float]]:
    """What answers `time N` of a peer whose step is `run`, which returns when all is done."""

    def time_steps(steps: int) -> dict[str, float]:
        began = time.perf_counter()
        for _ in range(steps):
            run()
        return {"seconds": (time.perf_counter() - began) / steps}

    return time_steps


def interleaved(peers: Sequence[Peer], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds a step, by peer and round: A B C A B C ..., after a round that does not count."""
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for i in range(rounds + 1):
        for peer in peers:
            seconds = peer.ask(f"time {steps}")["seconds"]
            if i:
                times[peer.name].append(seconds)
        print(f"\rround {i}/{rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return times


def table(times: Mapping[str, Sequence[float]], ours: str) -> str:
    """Median and least time of each, and the ratio of paired times to ours with its range."""
    lines = [
        "| step | median ms | least ms | times ours (median of pairs) | lowest .. highest pair |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, results in times.items():
        ratios = sorted(theirs / own for theirs, own in zip(results, times[ours], strict=True))
        lines.append(
            f"| {name} | {1e3 * statistics.median(results):.0f} | {1e3 * min(results):.0f} "
            f"| {statistics.median(ratios):.3f} | {ratios[0]:.3f} .. {ratios[-1]:.3f} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """What the numbers were measured on."""
    name = platform.processor()
    try:
        with open("/proc/cpuinfo") as lines:
            name = next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        pass
    load = os.getloadavg()[0]
    host = f"{name}, {os.cpu_count()} cores, load {load:.2f} at the start"
    return " and ".join([*_accelerators(), host])


def _accelerators() -> list[str]:
    """Their names, as the driver tells them: asking jax would take their memory."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
