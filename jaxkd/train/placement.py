"""Where arrays lie on several devices."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxkd.core.axes import DATA, TENSOR
from jaxkd.core.tree import map_named

# Which axis of a parameter, from its end, the devices of one block share: heads of attention,
# channels of the feed-forward, tokens of the vocabulary. What is cut in its outputs is followed by
# what is cut in its inputs, so that a block needs one sum over its devices for each such pair.
# Source: Shoeybi et al. (2019), arXiv:1909.08053.
CUT = {
    r"(query|key|value|expand|gate)(/kernel|/bias)?": -1,
    r"(attention|cross)/output/kernel|contract(/kernel)?": -2,
    r"embed/token|head/output": -2,
    r"head/bias": -1,
}


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


def spread(tree: Any, devices: Sequence[jax.Device] | None = None, tensor: int = 1) -> Any:
    """Each array cut over the devices along its longest axis that divides; small ones on all.

    With `tensor` > 1, what CUT names is first cut along that axis over the devices of a block, if
    it divides, and the other axes over the rest.

    >>> lies = spread({"token": jax.numpy.zeros((6, 8))}, jax.devices()[:1])["token"]
    >>> tuple(lies.sharding.spec)
    (None, 'data')
    """
    mesh = mesh_of(devices or jax.devices(), tensor)
    others = mesh.shape[DATA]

    def where(name: str, leaf: Any) -> NamedSharding:
        shape, axes = np.shape(leaf), [None] * np.ndim(leaf)
        axis = _cut(name) if tensor > 1 else 0
        if -len(shape) <= axis < 0 and shape[axis] and shape[axis] % tensor == 0:
            axes[axis] = TENSOR
        free = [0 if by or n % others else n for n, by in zip(shape, axes, strict=True)]
        if any(free):
            axes[free.index(max(free))] = DATA
        return NamedSharding(mesh, PartitionSpec(*axes))

    return map_named(lambda name, leaf: device_put_sharded(leaf, where(name, leaf)), tree)


def _cut(name: str) -> int:
    found = [axis for pattern, axis in CUT.items() if re.search(f"(^|/)({pattern})$", name)]
    return found[0] if found else 0


def replicated(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """The arrays on every device, so that no step has to send them again."""
    mesh = mesh_of(devices or jax.local_devices())
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def device_put_sharded(leaf: Any, where: NamedSharding) -> jax.Array:
    """The array there; every process has all of it, and gives its own devices their part.

    What lies there already is given back.
    """
    if isinstance(leaf, jax.Array) and leaf.sharding == where:
        return leaf
    if where.is_fully_addressable:
        return jax.device_put(leaf, where)
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, where, lambda part: whole[part])
