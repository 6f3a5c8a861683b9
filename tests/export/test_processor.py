"""How many bits int8 weights have depends on what a processor does with products of bytes."""

import pytest

from jaxkd.export.processor import int8_bits


@pytest.mark.parametrize(
    "machine, flags, bits",
    [
        ("x86_64", "avx2 avx512bw avx512_vnni", 8),
        ("x86_64", "avx2 avx_vnni", 8),
        ("AMD64", "avx2 avx512bw", 7),
        ("x86_64", None, 7),  # nothing is known of it
        ("aarch64", "asimd asimddp", 8),
        ("armv7l", None, 8),
    ],
)
def test_x86_without_vnni_gets_seven_bits(machine, flags, bits):
    cpuinfo = "" if flags is None else f"processor : 0\nflags\t\t: fpu {flags} sse\nbugs : x\n"
    assert int8_bits(cpuinfo, machine) == bits
