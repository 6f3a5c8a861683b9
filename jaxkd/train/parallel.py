"""One step, on one device or on all of them; nothing else places arrays or cuts batches."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxkd.core.batch import Batch
from jaxkd.core.names import did_you_mean

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


def sharded(step: Callable, devices: Sequence[jax.Device] | None = None) -> Callable:
    """The same step with state and teacher spread over the devices, and the batch cut evenly.

    Each device keeps a share of every large array (`spread`), of the optimiser's too, and gathers
    what it is about to use; XLA puts the communication in. The batch counts as one: `accumulate`
    and LayerDrop mean what they mean on one device. State is donated, and comes out as it went in.
    Losses fused with the head (`chunk`) take each device's own positions.
    Over several hosts every process gives the whole batch, and its devices take their rows of it.
    Source: Rajbhandari et al. (2019), arXiv:1910.02054 (ZeRO, stage 3); Xu et al. (2021),
    arXiv:2105.04663 (GSPMD).

    Raises (when called):
      ValueError: if the batch does not divide over the devices.
    """
    devices = devices or jax.devices()
    rows, everywhere = (NamedSharding(_mesh(devices), PartitionSpec(*x)) for x in ((AXIS,), ()))
    compiled = None

    def alone(state: Any, teacher: Any, batch: Batch) -> Any:
        return step(state, teacher, batch, None)

    def call(state: Any, teacher: Any, batch: Batch) -> Any:
        nonlocal compiled
        check_batch(batch.rows, 1, len(devices))
        if compiled is None:
            kept = jax.tree.map(lambda x: x.sharding, state)
            compiled = jax.jit(alone, donate_argnums=0, out_shardings=(kept, everywhere))
        with jax.set_mesh(rows.mesh):
            return compiled(state, teacher, jax.tree.map(lambda x: _placed(x, rows), batch))

    return call


def spread(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """Each array cut over the devices along its longest axis that divides; small ones on all."""
    devices = devices or jax.devices()

    def where(leaf: Any) -> NamedSharding:
        fitting = [n for n in np.shape(leaf) if n % len(devices) == 0 and n > 0]
        axes = [None] * np.ndim(leaf)
        if fitting:
            axes[np.shape(leaf).index(max(fitting))] = AXIS
        return NamedSharding(_mesh(devices), PartitionSpec(*axes))

    return jax.tree.map(lambda leaf: _placed(leaf, where(leaf)), tree)


def replicated(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """The arrays on every device, so that no step has to send them again."""
    mesh = _mesh(devices or jax.local_devices())
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def _placed(leaf: Any, where: NamedSharding) -> jax.Array:
    """The array there; every process has all of it, and gives its own devices their part."""
    if where.is_fully_addressable:
        return jax.device_put(leaf, where)
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, where, lambda part: whole[part])


def _mesh(devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.array(devices), (AXIS,))


# How a step runs, and where its state and teacher lie.
WAYS = {
    "jitted": (jitted, replicated),
    "pmapped": (pmapped, replicated),
    "sharded": (sharded, spread),
}


def way(name: str) -> tuple[Callable, Callable]:
    """A way to run steps and to place arrays; "auto" is pmapped where there are several devices,
    and sharded where there are several hosts.

    Raises:
      ValueError: for an unknown name.
    """
    if name == "auto":
        name = "pmapped" if jax.device_count() > 1 else "jitted"
        name = "sharded" if jax.process_count() > 1 else name
    if jax.process_count() > 1 and name != "sharded":
        raise ValueError(f"parallel={name!r}: over several hosts steps run 'sharded' (or 'auto').")
    if name not in WAYS:
        raise ValueError(f"parallel={name!r}. {did_you_mean(name, [*WAYS, 'auto'])}")
    return WAYS[name]


def check_batch(batch_size: int, accumulate: int, devices: int = 0) -> None:
    """Raise ValueError before any work if the batch will not divide (0: over all devices)."""
    devices = devices or jax.device_count()
    if batch_size < 1 or accumulate < 1 or batch_size % (devices * accumulate):
        raise ValueError(
            f"batch_size {batch_size} does not divide over {devices} device(s) x accumulate "
            f"{accumulate}. Choose a multiple of {devices * max(accumulate, 1)}."
        )
