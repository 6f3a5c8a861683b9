"""Arrays on several devices: replicated, or cut over them."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxkd.core.axes import DATA, TENSOR
from jaxkd.core.tree import map_named
from jaxkd.models import axes

# Axes that the devices of one block share, by their letters in models/axes.py: heads of attention,
# channels of the feed-forward, tokens of the vocabulary. A matrix cut in its outputs is followed by
# one cut in its inputs, so that a block needs one sum over its devices for each such pair.
# Source: Shoeybi et al. (2019), arXiv:1909.08053.
CUT = frozenset({"HK", "GK", "F", "I", "J", "V"})

_ARRAYS = "kernel|token|position|segment|relative|output|gate|expand|contract"
_INT8 = rf"(/(?:{_ARRAYS}))/(?:values|scale)$"


def mesh_of(devices: Sequence[jax.Device], tensor: int = 1) -> Mesh:
    """Rows of a batch are cut over the first axis, blocks over the second.

    Raises:
      ValueError: if `tensor` does not divide the devices.
    """
    check_tensor(len(devices), tensor)
    if tensor == 1:
        return Mesh(np.array(devices), (DATA,))
    return Mesh(np.array(devices).reshape(-1, tensor), (DATA, TENSOR))


def check_tensor(devices: int, tensor: int) -> None:
    """Raise ValueError unless `tensor` devices a block divide all of them."""
    if tensor < 1 or devices % tensor:
        allowed = [n for n in range(1, devices + 1) if devices % n == 0]
        raise ValueError(
            f"tensor is {tensor}; of {devices} device(s) one block may have {allowed}."
        )


def shard(tree: Any, devices: Sequence[jax.Device] | None = None, tensor: int = 1) -> Any:
    """Each array cut over the devices along its longest axis that divides; small ones on all.

    With `tensor` > 1, axes in CUT are first cut over the devices of a block, if they divide, and
    the other axes over the rest.

    Raises:
      ValueError: with `tensor` > 1, for a parameter without a row in models/axes.py.

    >>> sharded = shard({"token": jax.numpy.zeros((6, 8))}, jax.devices()[:1])["token"]
    >>> tuple(sharded.sharding.spec)
    (None, 'data')
    """
    mesh = mesh_of(devices or jax.devices(), tensor)
    others = mesh.shape[DATA]

    def where(name: str, leaf: Any) -> NamedSharding:
        shape, names = np.shape(leaf), [None] * np.ndim(leaf)
        axis = _cut(name, len(shape)) if tensor > 1 else None
        if axis is not None and shape[axis] and shape[axis] % tensor == 0:
            names[axis] = TENSOR
        free = [0 if by or n % others else n for n, by in zip(shape, names, strict=True)]
        if any(free):
            names[free.index(max(free))] = DATA
        return NamedSharding(mesh, PartitionSpec(*names))

    return map_named(lambda name, leaf: device_put_sharded(leaf, where(name, leaf)), tree)


def _cut(name: str, ndim: int) -> int | None:
    """The axis of a parameter, or of its optimiser's state, that devices of a block share."""
    if not ndim:  # a counter
        return None
    # An int8 array and its scale have the axes of the parameter they stand for.
    letters = axes.axes(re.sub(_INT8, r"\1", name), ndim)
    return next((i for i, letter in enumerate(letters) if letter in CUT), None)


def replicated(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """The arrays on every device, so that no step has to copy them again."""
    mesh = mesh_of(devices or jax.local_devices())
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def device_put_sharded(leaf: Any, where: NamedSharding) -> jax.Array:
    """The array with this sharding; every process has all of it, and gives its devices their part.

    An array that has the sharding already is returned as it is.
    """
    if isinstance(leaf, jax.Array) and leaf.sharding == where:
        return leaf
    if where.is_fully_addressable:
        return jax.device_put(leaf, where)
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, where, lambda part: whole[part])
