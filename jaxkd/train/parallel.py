"""One step, on one device or on all of them; nothing else places arrays or cuts batches.

What runs a step also has `lower(state, teacher, batch)`, as `jax.jit` has.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from jaxkd.core.axes import DATA
from jaxkd.core.batch import Batch
from jaxkd.core.names import did_you_mean
from jaxkd.train.placement import check_tensor, device_put_sharded, mesh_of, replicated, shard


def jitted(step: Callable) -> Callable:
    """The step compiled for one device; the state's buffers are donated to the new state."""

    def alone(state: Any, teacher: Any, batch: Batch) -> Any:
        return step(state, teacher, batch, None)

    return jax.jit(alone, donate_argnums=0)


def pmapped(step: Callable, devices: Sequence[jax.Device] | None = None) -> Callable:
    """The same step on several devices: state and teacher replicated, the batch cut evenly.

    State goes in and comes out without a device axis and is donated, so checkpoints and metrics
    look the same on any number of devices. The step sums over `DATA` itself.

    Raises (when called):
      ValueError: if the batch does not divide over the devices.
    """
    devices = devices or jax.local_devices()

    def one_of_many(state: Any, teacher: Any, batch: Batch) -> Any:
        return step(state, teacher, batch, DATA)

    mapped = jax.pmap(
        one_of_many,
        axis_name=DATA,
        in_axes=(None, None, 0),
        out_axes=(None, None),
        devices=devices,
        donate_argnums=0,
    )

    def split(state: Any, teacher: Any, batch: Batch) -> Any:
        return mapped(state, teacher, batch.split(len(devices)))

    split.lower = lambda state, teacher, batch: mapped.lower(
        state, teacher, batch.split(len(devices))
    )
    return split


def sharded(
    step: Callable, devices: Sequence[jax.Device] | None = None, tensor: int = 1
) -> Callable:
    """The same step with state and teacher sharded over the devices, and the batch cut evenly.

    Each device keeps a share of every large array (`shard`), of the optimiser's too, and gathers
    the arrays it is about to use; XLA adds the communication. The batch counts as one: `accumulate`
    and LayerDrop mean what they mean on one device. State is donated, and comes out as it went in.
    Losses fused with the head (`chunk`) take each device's own positions.
    With `tensor` > 1 that many devices share each block and the vocabulary: each has some of the
    heads, channels and tokens (`placement.CUT`), of the logits too, and they get the same rows.
    Over several hosts every process gives the whole batch, and its devices take their rows of it.
    Source: Rajbhandari et al. (2019), arXiv:1910.02054 (ZeRO, stage 3); Xu et al. (2021),
    arXiv:2105.04663 (GSPMD).

    Raises (when called):
      ValueError: if the batch does not divide over the devices.
    """
    mesh = mesh_of(devices or jax.devices(), tensor)
    rows, everywhere = (NamedSharding(mesh, PartitionSpec(*x)) for x in ((DATA,), ()))
    compiled = None

    def alone(state: Any, teacher: Any, batch: Batch) -> Any:
        return step(state, teacher, batch, None)

    def program(state: Any) -> Any:
        nonlocal compiled
        if compiled is None:
            kept = jax.tree.map(lambda x: x.sharding, state)
            compiled = jax.jit(alone, donate_argnums=0, out_shardings=(kept, everywhere))
        return compiled

    def on_mesh(batch: Batch) -> Batch:
        check_batch(batch.rows, 1, mesh.shape[DATA])
        return jax.tree.map(lambda x: device_put_sharded(x, rows), batch)

    def call(state: Any, teacher: Any, batch: Batch) -> Any:
        with jax.set_mesh(mesh):
            return program(state)(state, teacher, on_mesh(batch))

    def lower(state: Any, teacher: Any, batch: Batch) -> Any:
        with jax.set_mesh(mesh):
            return program(state).lower(state, teacher, on_mesh(batch))

    call.lower = lower
    return call


# How a step runs, and how its state and teacher are placed.
STRATEGIES = {
    "jitted": (jitted, replicated),
    "pmapped": (pmapped, replicated),
    "sharded": (sharded, shard),
}


def strategy(name: str, tensor: int = 1) -> tuple[Callable, Callable]:
    """How to run steps and to place arrays; "auto" is pmapped where there are several devices,
    and sharded where there are several hosts or several devices to a block.

    Raises:
      ValueError: for an unknown name; for a `tensor` that does not divide the devices.
    """
    if tensor != 1:
        if name not in ("auto", "sharded"):
            raise ValueError(f"tensor={tensor} and parallel={name!r}: blocks are cut by 'sharded'.")
        check_tensor(jax.device_count(), tensor)
        run, place = STRATEGIES["sharded"]
        return functools.partial(run, tensor=tensor), functools.partial(place, tensor=tensor)
    if name == "auto":
        name = "pmapped" if jax.device_count() > 1 else "jitted"
        name = "sharded" if jax.process_count() > 1 else name
    if jax.process_count() > 1 and name != "sharded":
        raise ValueError(f"parallel={name!r}: over several hosts steps run 'sharded' (or 'auto').")
    if name not in STRATEGIES:
        raise ValueError(f"parallel={name!r}. {did_you_mean(name, [*STRATEGIES, 'auto'])}")
    return STRATEGIES[name]


def check_batch(batch_size: int, accumulate: int, devices: int = 0) -> None:
    """Raise ValueError before any work if the batch will not divide (0: over all devices)."""
    devices = devices or jax.device_count()
    if batch_size < 1 or accumulate < 1 or batch_size % (devices * accumulate):
        raise ValueError(
            f"batch_size {batch_size} does not divide over {devices} device(s) x accumulate "
            f"{accumulate}. Choose a multiple of {devices * max(accumulate, 1)}."
        )
