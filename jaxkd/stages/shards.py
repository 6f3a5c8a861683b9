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

WAIT = 0.2  # seconds between two looks for what other hosts write


def write_shards(
    workspace: Workspace,
    folder: pathlib.Path,
    write: Callable[[int, Int[np.ndarray, " rows"]], Any],
    *,
    examples: int,
    shard_rows: int,
    example_bytes: int,
) -> int:
    """Write this host's part of the shards that lack; the first host then waits for the others.

    Args:
      write: is given a shard's number and the numbers of its rows; may raise.
    Returns: how many shards there are; on the first host all are then there.
    Raises:
      OSError: if the disk has no room for what lacks.
      KeyboardInterrupt: if the run is to stop; what is finished is kept.
    """
    shards = -(-examples // shard_rows)
    lacking = [i for i in range(shards) if not store.shard_file(folder, i).is_file()]
    check_space(folder, example_bytes * shard_rows * len(lacking))
    mine = share_of(lacking, jax.process_index(), jax.process_count())
    workspace.display.start(workspace.name, shards, shards - len(lacking))
    for done, number in enumerate(mine, shards - len(lacking) + 1):
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


def share_of(lacking: Sequence[int], host: int, hosts: int) -> list[int]:
    """The shards a host is to write: by their numbers, as hosts may not see the same ones lacking.

    >>> share_of([0, 1, 2, 3], host=0, hosts=2), share_of([1, 2, 3], host=1, hosts=2)
    ([0, 2], [1, 3])
    """
    return [number for number in lacking if number % hosts == host]
