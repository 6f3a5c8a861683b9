"""Joules by the processor's own counters (RAPL), where the system lets them be read."""

import pathlib

import numpy as np
from jaxtyping import Float

POWERCAP = pathlib.Path("/sys/class/powercap")


class Counters:
    """The energy counters of all processor packages; `missing` says why there are none.

    They count what the whole package takes: idle cores and other programs too. Linux lets only
    root read them (kernels from 5.10 on).
    """

    def __init__(self, root: pathlib.Path = POWERCAP):
        # intel-rapl:0 is a package, of AMD's processors too; intel-rapl:0:0 is a part of it.
        packages = sorted(p for p in root.glob("intel-rapl:*") if p.name.count(":") == 1)
        self.missing, self._files, self._ranges = "", [], np.zeros(0)
        if not packages:
            self.missing = f"this system has no energy counters (no {root}/intel-rapl:*)"
            return
        try:
            self._ranges = _numbers([p / "max_energy_range_uj" for p in packages])
            self._files = [p / "energy_uj" for p in packages]
            self.read()
        except (OSError, ValueError) as error:
            self.missing = f"the energy counters cannot be read ({error}); Linux asks for root"

    def read(self) -> Float[np.ndarray, " packages"]:
        """The counters as they stand, in microjoules."""
        return _numbers(self._files)

    def joules_since(self, before: Float[np.ndarray, " packages"]) -> float:
        """Joules of all packages since `read` returned `before`; a counter may start again once."""
        used = self.read() - before
        return float(np.where(used < 0, used + self._ranges, used).sum()) / 1e6


def _numbers(files: list[pathlib.Path]) -> Float[np.ndarray, " files"]:
    return np.array([float(file.read_text()) for file in files])
