"""Losses fused with the vocabulary head: logits exist for one chunk of positions at a time."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Bool, Int

from jaxkd.core.axes import TENSOR
from jaxkd.core.backend import cpu_workarounds
from jaxkd.core.outputs import Projection

# (student's logits [C, V], teacher's [C, U] or None, labels [C]) -> name -> values [C]
Values = Callable[[Array, Array | None, Array], Mapping[str, Array]]


def fused(
    values: Values,
    weights: Mapping[str, Any],
    student: Projection,
    teacher: Projection | Any,
    labels: Int[Array, "*B"],
    mask: Bool[Array, "*B"],
    *,
    chunk: int = 256,
) -> tuple[Any, dict[str, Any]]:
    """sum_i weights_i total_i, where total_i is the sum of the i-th values where the mask is True.

    Positions that count are taken `chunk` at a time: logits of both models, values, and, if the sum
    is differentiated, their gradient at once, so that the backward pass has nothing to compute
    again. Memory is a few chunks of logits and the gradient of the student's matrix, however many
    positions there are; time grows with those that count.
    Source: the scheme of Liger's chunked losses (Hsu et al., 2024, arXiv:2410.10989), with any
    loss of this package, and a loop as long as the mask.

    On a mesh (`jax.set_mesh`) whose devices divide the first axis, each device takes its own part
    of the positions, with the whole matrix, and sums are added up over all. Where the mesh has an
    axis TENSOR, its devices take the same positions and each a part of the vocabulary: no
    device has the whole matrix, or the logits of all tokens.

    The teacher gets no gradient, nor do numbers that `values` closes over (a temperature).

    Args:
      values: any of the losses, unreduced; its arguments are those of the dense losses.
      teacher: what its logits are made from; or arrays [*B, k] of stored targets, passed to
        `values` a chunk at a time; or None.
      weights: scalars by the names that `values` returns.
      chunk: positions; their logits, of both models and in float32, must fit.
    Returns: the weighted sum, and each total by name, which is not differentiated.
    Raises:
      ValueError: if chunk < 1.

    >>> from jaxkd.losses import hard_labels
    >>> student = Projection(jnp.zeros((6, 2)), jnp.zeros((4, 2)))  # six times ln 4, two masked out
    >>> ce = lambda logits, _, labels: {"ce": hard_labels(logits, labels)}
    >>> mask = jnp.arange(6) < 4
    >>> loss, totals = fused(ce, {"ce": 0.5}, student, None, jnp.zeros(6, int), mask, chunk=3)
    >>> round(float(loss), 4), round(float(totals["ce"]), 4)
    (2.7726, 5.5452)
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; at least one position has its logits at a time.")
    weights = {name: jnp.asarray(weight, jnp.float32) for name, weight in weights.items()}
    mesh = jax.sharding.get_abstract_mesh()
    automatic = all(kind == AxisType.Auto for kind in mesh.axis_types)  # not within a pmap
    axes = [axis for axis in mesh.axis_names if axis != TENSOR] if automatic else []
    count = math.prod(mesh.shape[axis] for axis in axes)
    if count == 1 or not mask.ndim or mask.shape[0] % count:
        whole = (values, min(chunk, mask.size), weights, student, teacher, labels, mask)
        loss, totals = _fused(*whole)
        return loss, jax.lax.stop_gradient(totals)

    def of_one(weights: Any, student: Projection, teacher: Any, labels: Array, mask: Array) -> Any:
        local = _fused(values, min(chunk, mask.size), weights, student, teacher, labels, mask)
        return jax.lax.psum(local, axes)

    rows, all_of_it = PartitionSpec(tuple(axes)), PartitionSpec()

    def parts(argument: Any) -> Any:
        if isinstance(argument, Projection):
            bias = None if argument.bias is None else all_of_it
            return Projection(rows, all_of_it, bias)
        return jax.tree.map(lambda _: rows, argument)

    arguments = (weights, student, teacher, labels, mask)
    specs = (jax.tree.map(lambda _: all_of_it, weights), *map(parts, arguments[1:]))
    # Without the check of what varies: a loop's sums begin as zeros that do not.
    each = jax.shard_map(
        of_one, in_specs=specs, out_specs=all_of_it, axis_names=set(axes), check_vma=False
    )
    loss, totals = each(*arguments)
    return loss, jax.lax.stop_gradient(totals)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fused(
    values: Values, chunk: int, weights: Mapping[str, Any], *arguments: Any
) -> tuple[Any, dict[str, Any]]:
    part = _Chunks(values, chunk, weights, *arguments)

    def turn(i: Any, totals: dict[str, Any]) -> dict[str, Any]:
        return jax.tree.map(jnp.add, totals, part.totals(part.logits(i), i)[1])

    totals = jax.lax.fori_loop(0, part.turns, turn, part.zeros)
    return sum(weights[name] * totals[name] for name in totals), totals


def _forward(values: Values, chunk: int, *arguments: Any) -> tuple[Any, Any]:
    part = _Chunks(values, chunk, *arguments)
    weights, student = arguments[:2]
    features = part.student.features
    zeros = Projection(
        jnp.zeros_like(features),
        _by_token(jnp.zeros(student.matrix.shape, jnp.float32)),
        None if student.bias is None else jnp.zeros(student.bias.shape, jnp.float32),
    )

    def turn(i: Any, carried: tuple[Any, Projection]) -> tuple[Any, Projection]:
        totals, sums = carried
        rows, counted = part.rows(i)
        gradient, more = jax.grad(part.totals, has_aux=True)(part.logits(i), i)
        gradient = _by_token(gradient.T)  # [V, C], the layout of the products
        small = gradient.astype(features.dtype)
        to_features = _over_tokens(small, part.student.matrix)
        chunk_features = part.at(features, rows, counted)
        to_matrix = jnp.matmul(small, chunk_features, preferred_element_type=jnp.float32)
        sums = Projection(
            sums.features.at[rows].set(to_features.astype(features.dtype), mode="drop"),
            _by_token(sums.matrix + to_matrix),
            None if sums.bias is None else sums.bias + gradient.sum(1),
        )
        return jax.tree.map(jnp.add, totals, more), sums

    totals, sums = jax.lax.fori_loop(0, part.turns, turn, (part.zeros, zeros))
    sums = Projection(
        sums.features.reshape(student.features.shape),
        sums.matrix.astype(student.matrix.dtype),
        None if sums.bias is None else sums.bias.astype(student.bias.dtype),
    )
    loss = sum(weights[name] * totals[name] for name in totals)
    return (loss, totals), (totals, sums)


def _backward(values: Values, chunk: int, kept: Any, cotangents: Any) -> tuple[Any, ...]:
    totals, sums = kept
    along = cotangents[0]
    to_student = jax.tree.map(lambda x: (along * x).astype(x.dtype), sums)
    to_weights = {name: along * total for name, total in totals.items()}
    return to_weights, to_student, None, None, None


_fused.defvjp(_forward, _backward)


class _Chunks:
    """The flattened arguments, and the parts of them that one iteration needs."""

    def __init__(
        self,
        values: Values,
        chunk: int,
        weights: Mapping[str, Any],
        student: Projection,
        teacher: Projection | Any,
        labels: Array,
        mask: Array,
    ):
        self.student, self.teacher = _flat(student), _flat(teacher)
        self._values, self._weights, self._chunk = values, weights, chunk
        self._labels, mask = labels.ravel(), mask.ravel()
        self._count = jnp.sum(mask)
        self.turns = -(-self._count // chunk)
        # Unmasked positions first; the filler is out of range.
        order = jnp.argsort(~mask, stable=True)
        self._order = jnp.pad(order, (0, -mask.size % chunk), constant_values=mask.size)
        shapes = jax.eval_shape(lambda: self.totals(self.logits(0), 0)[1])
        self.zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def rows(self, i: Any) -> tuple[Array, Array]:
        """The positions of chunk i, and which of them count."""
        start = i * self._chunk
        rows = jax.lax.dynamic_slice_in_dim(self._order, start, self._chunk)
        return rows, start + jnp.arange(self._chunk) < self._count

    def at(self, array: Array, rows: Array, counted: Array) -> Array:
        # A masked position may be nan, which a zero weight would not remove from a sum: it is
        # replaced by a row of zeros. Not with a select, for which XLA's CPU backend would convert
        # bfloat16 to float32 before the product.
        padded = jnp.pad(array, ((0, 1), *((0, 0),) * (array.ndim - 1)))
        return padded.at[jnp.where(counted, rows, len(array))].get(mode="promise_in_bounds")

    def logits(self, i: Any) -> Array:
        return self._of(self.student, *self.rows(i))

    def totals(self, logits: Array, i: Any) -> tuple[Any, dict[str, Any]]:
        rows, counted = self.rows(i)
        if isinstance(self.teacher, Projection):
            teacher_logits = self._of(self.teacher, rows, counted)
        else:
            teacher_logits = jax.tree.map(lambda x: self.at(x, rows, counted), self.teacher)
        by_name = self._values(logits, teacher_logits, self.at(self._labels, rows, counted))
        totals = {k: jnp.sum(jnp.where(counted, v, 0.0)) for k, v in by_name.items()}
        return sum(self._weights[name] * total for name, total in totals.items()), totals

    def _of(self, projection: Projection, rows: Array, counted: Array) -> Array:
        features = self.at(projection.features, rows, counted)
        logits = Projection(features, projection.matrix, projection.bias).logits()
        return jnp.moveaxis(_by_token(jnp.moveaxis(logits, -1, 0)), 0, -1)


def _over_tokens(gradient: Array, matrix: Array) -> Array:
    """gradient.T @ matrix in float32, [C, E] of [V, C] and [V, E]."""
    over = ((0,), (0,))
    if gradient.dtype == jnp.bfloat16 and cpu_workarounds():
        # Over two axes: over a single first one XLA (jax 0.10.2) multiplies in float32, which took
        # 60 ms instead of 18 for 30,522 x 256 and 512.
        # Without the barrier it fuses the gradient into the product and fails at run time.
        gradient, matrix = jax.lax.optimization_barrier((gradient[None], matrix[None]))
        over = ((0, 1), (0, 1))
    product = jax.lax.dot_general(
        gradient, matrix, (over, ((), ())), preferred_element_type=jnp.float32
    )
    return jax.lax.optimization_barrier(product) if len(over[0]) == 2 else product


def _by_token(array: Array) -> Array:
    """[V, ...], sharded by tokens over the devices that share the vocabulary, if any."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if kinds.get(TENSOR) != AxisType.Auto:
        return array
    return jax.lax.with_sharding_constraint(array, PartitionSpec(TENSOR))


def _flat(projection: Projection | Any) -> Projection | Any:
    """Features [N, E], and the matrix in their type, once for all chunks; other arrays [N, k]."""
    if not isinstance(projection, Projection):
        return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), projection)
    features = projection.features.reshape(-1, projection.features.shape[-1])
    matrix = _by_token(projection.matrix.astype(features.dtype))
    return Projection(features, matrix, projection.bias)
