"""Shards of a store: each host writes its own, and none is written twice."""

import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxkd.checkpoint import teacher_store as store
from jaxkd.checkpoint.series import check_space
from jaxkd.runs.experiment import Workspace
from jaxkd.runtime import hosts

WAIT = 0.2  # seconds between two looks for shards of other hosts


def write_shards(
    workspace: Workspace,
    folder: pathlib.Path,
    write: Callable[[int, Int[np.ndarray, " rows"]], Any],
    *,
    examples: int,
    shard_rows: int,
    example_bytes: int,
) -> int:
    """Write this host's part of the missing shards; the first host then waits for the others.

    Args:
      write: called with a shard's number and the numbers of its rows; may raise.
    Returns: the number of shards; on the first host all of them then exist.
    Raises:
      OSError: if the disk has no room for the missing shards.
      KeyboardInterrupt: if the run is to stop; what is finished is kept.
    """
    shards = -(-examples // shard_rows)
    missing = [i for i in range(shards) if not store.shard_file(folder, i).is_file()]
    check_space(folder, example_bytes * shard_rows * len(missing))
    own = share_of(missing, jax.process_index(), jax.process_count())
    workspace.display.start(workspace.name, shards, shards - len(missing))
    for done, number in enumerate(own, shards - len(missing) + 1):
        write(number, np.arange(number * shard_rows, min(examples, (number + 1) * shard_rows)))
        workspace.display.step(done, {})
    workspace.display.stop()
    while hosts.first() and not all(store.shard_file(folder, i).is_file() for i in range(shards)):
        raise_if_stopping(workspace)
        time.sleep(WAIT)
    return shards


def raise_if_stopping(workspace: Workspace) -> None:
    """Raise KeyboardInterrupt if the run is to stop."""
    if workspace.stopping():
        raise KeyboardInterrupt("stopped within a shard; start again to go on from it")


def share_of(missing: Sequence[int], host: int, hosts: int) -> list[int]:
    """The shards a host writes: by their numbers, as hosts may not see the same ones missing.

    >>> share_of([0, 1, 2, 3], host=0, hosts=2), share_of([1, 2, 3], host=1, hosts=2)
    ([0, 2], [1, 3])
    """
    return [number for number in missing if number % hosts == host]
