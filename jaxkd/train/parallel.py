"""One step, on one device or on all of them; nothing else in the code knows about devices."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxkd.core.batch import Batch

AXIS = "data"


def jitted(step: Callable) -> Callable:
    """The step compiled for one device; the state's buffers are given up to the new state."""

    def alone(state: Any, teacher: Any, batch: Batch) -> Any:
        return step(state, teacher, batch, None)

    return jax.jit(alone, donate_argnums=0)


def pmapped(step: Callable, devices: Sequence[jax.Device] | None = None) -> Callable:
    """The same step on several devices: state and teacher replicated, the batch cut evenly.

    State goes in and comes out without a device axis and is donated, so checkpoints and metrics
    look the same on any number of devices. The step sums over `AXIS` itself.

    Raises (when called):
      ValueError: if the batch does not divide over the devices.
    """
    devices = devices or jax.local_devices()

    def one_of_many(state: Any, teacher: Any, batch: Batch) -> Any:
        return step(state, teacher, batch, AXIS)

    mapped = jax.pmap(
        one_of_many,
        axis_name=AXIS,
        in_axes=(None, None, 0),
        out_axes=(None, None),
        devices=devices,
        donate_argnums=0,
    )

    def split(state: Any, teacher: Any, batch: Batch) -> Any:
        return mapped(state, teacher, batch.split(len(devices)))

    return split


def replicated(tree: Any) -> Any:
    """The arrays on every local device, so that no step has to send them again."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def best(step: Callable) -> Callable:
    """`pmapped` where there are several devices, else `jitted`."""
    return pmapped(step) if jax.local_device_count() > 1 else jitted(step)


def check_batch(batch_size: int, accumulate: int) -> None:
    """Raise ValueError before any work if the batch will not divide."""
    devices = jax.local_device_count()
    if batch_size < 1 or accumulate < 1 or batch_size % (devices * accumulate):
        raise ValueError(
            f"batch_size {batch_size} does not divide over {devices} device(s) x accumulate "
            f"{accumulate}. Choose a multiple of {devices * max(accumulate, 1)}."
        )
