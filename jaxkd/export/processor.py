"""What this machine's processor does with products of bytes."""

import pathlib
import platform
import re

CPUINFO = pathlib.Path("/proc/cpuinfo")
VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}


def int8_bits(cpuinfo: str | None = None, machine: str | None = None) -> int:
    """Bits of int8 weights whose products with unsigned bytes this processor adds up exactly.

    x86 without VNNI adds pairs of products in 16 bits, which 8 bits can overflow and 7 cannot;
    onnxruntime uses these instructions. Other processors have no such limit.

    Args:
      cpuinfo: as in /proc/cpuinfo; None: this machine's. Where there is none, x86 counts as
        without VNNI.

    >>> int8_bits("flags : sse avx2", "x86_64"), int8_bits("flags : avx512_vnni", "x86_64")
    (7, 8)
    """
    machine = platform.machine() if machine is None else machine
    if machine.lower() not in ("x86_64", "amd64", "i686"):
        return 8
    if cpuinfo is None:
        cpuinfo = CPUINFO.read_text() if CPUINFO.is_file() else ""
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    return 8 if flags and VNNI & set(flags[1].split()) else 7
