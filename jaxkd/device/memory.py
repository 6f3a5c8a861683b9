"""What memory this process has and the machine could give, from Linux's /proc; None elsewhere."""

import ctypes
import gc
import os

STATUS, MEMINFO = "/proc/self/status", "/proc/meminfo"
# name of ours -> key of /proc/self/status
KEYS = {"anonymous": "RssAnon", "file_backed": "RssFile", "resident": "VmRSS", "peak": "VmHWM"}


def process(path=STATUS):
    """Bytes of this process: anonymous, file-backed, both, and the peak of both.

    File-backed memory holds parts of mapped files, which the system takes back when it needs them.
    """
    values = _values(path)
    return {name: values.get(key) for name, key in KEYS.items()}


def available(path=MEMINFO):
    """Bytes that new work can have without swapping; None if the system does not say."""
    return _values(path).get("MemAvailable")


def _values(path):
    try:
        with open(path) as stream:
            lines = stream.read().splitlines()
    except OSError:
        return {}
    values = {}
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[2] == "kB" and words[1].isdigit():
            values[words[0].rstrip(":")] = 1024 * int(words[1])
    return values


def trim():
    """Give freed memory back to the system, where the C library can (glibc)."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        pass


# mallopt's numbers for what glibc keeps at the end of its heap, and for the least size of a block
# that it takes from the system each time; and how much that is here.
KEPT_BY_GLIBC = {-1: 64 * 2**20, -3: 32 * 2**20}
SET_BY_USER = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed():
    """Have glibc keep some freed memory, so that a block's activations reuse the last one's.

    It would hand them back after each node and have the system fill them with zeros again. Of
    other C libraries, and where the user has set glibc's variables, nothing is changed.
    """
    if any(name in os.environ for name in SET_BY_USER):
        return
    try:
        library = ctypes.CDLL("libc.so.6")
        for parameter in sorted(KEPT_BY_GLIBC):
            library.mallopt(parameter, KEPT_BY_GLIBC[parameter])
    except (OSError, AttributeError):
        pass


def collect():
    """Free what nothing refers to any longer, so that the next reading is of what is used."""
    gc.collect()
