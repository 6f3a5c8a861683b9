"""Randomness that is derived, never stored: the same seed, name and step give the same draw."""

import zlib

import jax
import numpy as np


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


def stream(seed: int, name: str, step=0, axis: str | None = None) -> jax.Array:
    """A JAX key for one use (`name`) at one step; `axis` names a mapped axis to differ along.

    Without `axis` all devices draw the same, which is what LayerDrop needs to save its work.

    >>> bool((stream(0, "dropout", 3) == stream(0, "dropout", 3)).all())
    True
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _number(name)), step)
    return key if axis is None else jax.random.fold_in(key, jax.lax.axis_index(axis))


def numpy_stream(seed: int, name: str, index: int) -> np.random.Generator:
    """The host's counterpart of `stream`, for the data pipeline.

    >>> numpy_stream(0, "masking", 7).integers(100) == numpy_stream(0, "masking", 7).integers(100)
    np.True_
    """
    # In the counter's highest word: in the lowest, stream i + 1 would be stream i a few draws on.
    counter = [0, 0, 0, index]
    return np.random.Generator(np.random.Philox(key=(seed << 32) + _number(name), counter=counter))
