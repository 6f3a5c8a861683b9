"""How much memory there is for what a run will hold."""

import pathlib

import jax


def available() -> int | None:
    """Bytes that one device can still give, the host's for a CPU; None if nothing says.

    >>> free = available()
    >>> free is None or free > 0
    True
    """
    device = jax.local_devices()[0]
    statistics = device.memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    if device.platform != "cpu":
        return None
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = {line.split(":")[0]: line.split()[1] for line in lines}
    return 1024 * int(kilobytes["MemAvailable"])
