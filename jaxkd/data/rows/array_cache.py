"""Arrays that are made once: a file in the cache that appears whole or not at all."""

import os
import pathlib
from collections.abc import Callable, Mapping

import numpy as np


def cached_arrays(
    cache: pathlib.Path, fingerprint: str, make: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays of that fingerprint, by name: out of the cache, or made and put there."""
    file = cache / "rows" / f"{fingerprint}.npz"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f"{file.stem}.{os.getpid()}.npz")
        np.savez(unfinished, **make())
        os.replace(unfinished, file)
    with np.load(file) as stored:
        return {name: stored[name] for name in stored.files}
