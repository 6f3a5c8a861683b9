"""Measures a bundle on this machine: time, layers used, memory after each layer, energy."""

import platform
import time

import numpy as np

from jaxkd.device import energy, memory
from jaxkd.device.errors import UsageError

IDLE = 2.0  # seconds in which the idle power is measured
PERCENTILES = (50, 90, 99)


def percentiles(milliseconds):
    """By name: p50, p90, p99."""
    return {(f"p{each}"): float(np.percentile(milliseconds, each)) for each in PERCENTILES}


def bench(bundle, answer, inputs, seconds=5.0, root="/", watts=None):
    """Numbers of one bundle over inputs that are answered again and again for `seconds`.

    Args:
      answer: a function of one input, which returns (blocks that ran, milliseconds of each part).
      watts: what an external meter reads, for boards without a sensor.
    """
    if not inputs:
        raise UsageError("there is nothing to measure: give texts with --text or --file.")
    sensor, reason = energy.find(root)
    idle = None
    if sensor is not None:
        with energy.Meter(sensor, reason) as meter:
            time.sleep(IDLE)
        idle = meter.joules / meter.seconds
    for each in inputs[:3]:
        answer(each)  # the first runs prepare memory
    times, blocks, parts = [], [], {}
    with energy.Meter(sensor, reason) as meter:
        start = time.perf_counter()
        while not times or time.perf_counter() - start < seconds:
            for each in inputs:
                before = time.perf_counter()
                used, laps = answer(each)
                times.append(1000 * (time.perf_counter() - before))
                blocks.append(used)
                for name, milliseconds in laps:
                    parts.setdefault(name, []).append(milliseconds)
    described = meter.result(len(times), idle)
    if described["joules"] is None and watts is not None:
        described = {
            "sensor": "external meter",
            "watts": watts,
            "readings": 0,
            "joules": watts * sum(times) / 1000 / len(times),
            "seconds": meter.seconds,
        }
    counts = np.bincount(blocks)
    return {
        "inferences": len(times),
        "milliseconds": dict(percentiles(times), mean=float(np.mean(times))),
        "parts": {name: float(np.median(each)) for name, each in parts.items()},
        "blocks": {str(i): int(count) for i, count in enumerate(counts) if count},
        "mean_blocks": float(np.mean(blocks)),
        "memory": memory.process(),
        "residency": bundle.tiers,
        "energy": described,
        "temperature": energy.temperature(root),
    }


def memory_by_layer(answer_with):
    """Bytes after each block of one run: [(block, anonymous, file-backed)].

    Args:
      answer_with: runs one input, and calls its argument with the number of each block that ran.
    """
    seen = []

    def after(i):
        now = memory.process()
        seen.append((i, now["anonymous"], now["file_backed"]))

    memory.collect()
    answer_with(after)
    return seen


def versions():
    """What ran."""
    import onnxruntime

    return dict(
        energy.machine(),
        python=platform.python_version(),
        numpy=np.__version__,
        onnxruntime=onnxruntime.__version__,
        system=platform.machine(),
    )
