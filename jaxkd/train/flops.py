"""Floating-point operations that a step needs, and the peak of a machine: model FLOPs utilisation.

The matrix products of the models' programs are counted; not what is computed again to save memory,
nor padding, nor what a causal mask hides. A step of distillation needs
3 F_student + F_teacher, F being a forward pass: backward costs twice as much as forward.
Source: Chowdhery et al. (2022), arXiv:2204.02311, appendix B (model FLOPs utilisation).
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np

from jaxkd.core.batch import Batch
from jaxkd.models.model import Model, Params, predict, states

# Dense bfloat16 FLOP/s of one device, from the vendors' data sheets.
PEAKS = {
    "TPU v2": 22.5e12,  # a core, which is what JAX calls a device up to v3
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


@dataclasses.dataclass(frozen=True)
class Flops:
    """FLOPs of one forward pass over a batch, padding included."""

    body: float = 0.0  # products of activations and weights, before the head
    attention: float = 0.0  # products of activations with each other
    head: float = 0.0


def products(function: Callable, *args: Any) -> Flops:
    """FLOPs of a function's matrix products: `body` those with weights, `attention` batched ones.

    A product has 2 M N K. Loops count as often as they turn; a loop whose
    number of turns is not known before it runs counts once, and of a choice the dearest branch.

    >>> products(jnp.matmul, jnp.zeros((2, 3)), jnp.zeros((3, 5)))
    Flops(body=60.0, attention=0.0, head=0.0)
    """
    body, attention = _of(jax.make_jaxpr(function)(*args).jaxpr)
    return Flops(float(body), float(attention))


def _of(jaxpr: Any) -> np.ndarray:
    total = np.zeros(2)
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            contracted, batched = params["dimension_numbers"]
            first = equation.invars[0].aval.shape
            depth = math.prod(first[axis] for axis in contracted[0])
            # Two batch axes or more: rows and heads, so activations times activations.
            kind = int(len(batched[0]) > 1)
            total[kind] += 2 * depth * math.prod(equation.outvars[0].aval.shape)
        elif name.startswith("ragged_dot"):
            rows, depth = equation.invars[0].aval.shape[-2:]
            total[0] += 2 * rows * depth * equation.outvars[0].aval.shape[-1]
        elif name == "cond":
            total += max((_of(branch.jaxpr) for branch in params["branches"]), key=sum)
        elif name == "while":
            total += _of(params["body_jaxpr"].jaxpr)
        else:
            turns = params["length"] if name == "scan" else 1
            for inner in _inside(params):
                total += turns * _of(inner)
    return total


def _inside(params: Any) -> list[Any]:
    """The programs an operation calls; a function with a rule of its own is its first one."""
    for value in params.values():
        if isinstance(value, jex.core.ClosedJaxpr):
            return [value.jaxpr]
        if isinstance(value, jex.core.Jaxpr):
            return [value]
    return []


class Part:
    """One of a step's models: how often its forward pass counts, and what a pass needs."""

    def __init__(
        self,
        times: float | int,
        model: Model,
        params: Params,
        *,
        causal: bool,
        blocks: float | int = 1,
    ):
        """`blocks`: the share of them that runs in the mean (LayerDrop)."""
        self.times, self.causal, self.blocks, self._model = times, causal, blocks, model
        # Shapes alone: a step donates the arrays themselves.
        self._params = jax.tree.map(_shape, params)

    def forward(self, batch: Batch) -> Flops:
        shapes = jax.tree.map(_shape, batch)

        def body(params: Params, batch: Batch) -> Any:
            return states(self._model, params, batch).hidden[-1]

        def head(params: Params, batch: Batch, hidden: Any) -> Any:
            return predict(self._model, params, batch, hidden)[0]

        before = products(body, self._params, shapes)
        hidden = jax.eval_shape(body, self._params, shapes)
        after = products(head, self._params, shapes, hidden)
        return dataclasses.replace(before, head=after.body)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype)


class Needed:
    """FLOPs that one step needed: `needed(batch)`, of a batch on the host."""

    def __init__(self, parts: Sequence[Part]):
        self._parts = parts
        self._known: dict[str, list[Flops]] = {}

    def __call__(self, batch: Batch) -> float:
        shapes = str(jax.tree.map(np.shape, batch))
        if shapes not in self._known:
            self._known[shapes] = [part.forward(batch) for part in self._parts]
        counted = np.asarray(batch.mask)
        share = counted.mean()
        # A row of n tokens has n^2 pairs, of which a causal mask shows half.
        pairs = np.mean((counted.sum(1) / counted.shape[1]) ** 2)
        predicted = share if batch.target_mask is None else np.asarray(batch.target_mask).mean()
        needed = 0.0
        for part, flops in zip(self._parts, self._known[shapes], strict=True):
            visible = pairs * (0.5 if part.causal else 1.0)
            blocks = share * flops.body + visible * flops.attention
            forward = part.blocks * blocks + predicted * flops.head
            needed += part.times * forward
        return float(needed)


@functools.cache
def peak(dtype: str, devices: int) -> float:
    """FLOP/s of that many devices at most; of a CPU, as measured on it.

    An accelerator's is its bfloat16 figure whatever `dtype` is, by convention. nan for one that
    is not in PEAKS.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":  # simulated devices share it
        return jax.process_count() * _measured(dtype)
    # "TPU v5 lite" begins with "TPU v5", which is another: the longest name is meant.
    known = [name for name in PEAKS if device.device_kind.startswith(name)]
    return devices * PEAKS[max(known, key=len)] if known else math.nan


def _measured(dtype: str, size: int = 1024) -> float:
    """The best of some products of square matrices."""
    with jax.default_device(jax.local_devices()[0]):
        square = jnp.ones((size, size), jnp.dtype(dtype))
        product = jax.jit(lambda a: jnp.matmul(a, a, preferred_element_type=jnp.float32))
        product(square).block_until_ready()
        best = math.inf
        for _ in range(5):
            began = time.perf_counter()
            product(square).block_until_ready()
            best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
