"""Several processes, each with devices of its own, that are one run."""

import hashlib
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def start(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Join the others; before anything else is asked of JAX.

    On Cloud TPU, Slurm and the like JAX finds them itself, and nothing need be given. Elsewhere:

    Args:
      coordinator: "ADDRESS:PORT" of process 0.
      processes: how many there are.
      process: which one this is, from 0.
    Raises:
      ValueError: if only some of the three are given.
      RuntimeError: if the others do not come.
    """
    options = (bool(coordinator), processes > 0, process >= 0)
    if any(options) and not all(options):
        raise ValueError(
            f"--coordinator={coordinator!r}, --processes={processes}, --process={process}: give "
            "all three, or none where JAX finds the others itself (Cloud TPU, Slurm)."
        )
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if all(options):
        jax.distributed.initialize(coordinator, processes, process)
    else:
        jax.distributed.initialize()


def several() -> bool:
    return jax.process_count() > 1


def first() -> bool:
    """Whether this is the process that writes files and talks."""
    return jax.process_index() == 0


def agree(flag: bool) -> bool:
    """Whether any process says so; all must ask at the same point of their work."""
    if not several():
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def check_same(text: str, what: str) -> None:
    """Raise ValueError unless all processes give the same text; all must ask.

    A process that went on with another one would wait for what never comes.
    """
    if not several():
        return
    own = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    unlike = np.any(multihost_utils.process_allgather(own) != own, axis=1)
    if unlike.any():
        raise ValueError(
            f"{what} is not the same on all hosts: {text} on host {jax.process_index()}, something "
            f"else on {np.flatnonzero(unlike).tolist()}. They need the same code, data and files."
        )


class CollectiveFlag:
    """A question every process answers for itself, until one says yes: then all do, at one step."""

    EVERY = 16  # times it is asked until the processes ask each other

    def __init__(self, question: Callable[[], bool]):
        self._question, self._times, self._yes = question, 0, False

    def __call__(self) -> bool:
        if not several():
            return self._question()
        self._times += 1
        if self._times % self.EVERY == 0:
            self._yes = agree(self._question())
        return self._yes


def gathered(tree: Any) -> Any:
    """The arrays whole, in the memory of every host, where they lie on several; all must ask."""

    def whole(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if leaf.is_fully_replicated:
            return np.asarray(leaf)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(whole, tree)
