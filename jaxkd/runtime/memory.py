"""How much memory a device has free."""

import pathlib

import jax


def available() -> int | None:
    """Free bytes of one device, of a CPU its share of the host's; None if they are not known.

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
    free = [bytes_ for bytes_ in (_of_host(), _of_group()) if bytes_ is not None]
    return min(free) // jax.local_device_count() if free else None


def _of_host(file: pathlib.Path = pathlib.Path("/proc/meminfo")) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    kilobytes = {line.split(":")[0]: line.split()[1] for line in lines}
    return 1024 * int(kilobytes["MemAvailable"])


def _of_group(folder: pathlib.Path = pathlib.Path("/sys/fs/cgroup")) -> int | None:
    """What the control group of this process (a container) may still take; None: no limit."""
    try:
        most, used = ((folder / f"memory.{name}").read_text() for name in ("max", "current"))
        return int(most) - int(used)
    except (OSError, ValueError):  # no such files, or "max"
        return None
