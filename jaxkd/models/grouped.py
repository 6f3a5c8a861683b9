"""Matrix products of groups of rows, each group with a matrix of its own."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Rows a product on a CPU. Half a block an expert is wasted: benchmarks/experts.py's time grows with
# the experts to the power 0.11 with 32, 0.15 with 64 and 0.21 with 128.
BLOCK = 32


def grouped_dot(
    rows: Float[Array, "N D"], weights: Float[Array, "E D F"], sizes: Int[Array, " E"]
) -> Float[Array, "N F"]:
    """Row n times the matrix of its group: the first sizes[0] rows are group 0's, and so on.

    `jax.lax.ragged_dot`, but on a CPU, where XLA (jax 0.10.2) computes that as if every group had
    all rows: there groups are cut into blocks, and only blocks that have rows are multiplied.
    Sizes must add up to N. Differentiable in reverse.
    """
    return jax.lax.platform_dependent(
        rows, weights, sizes, cpu=_by_blocks, default=jax.lax.ragged_dot
    )


@jax.custom_vjp
def _by_blocks(rows: Array, weights: Array, sizes: Array) -> Array:
    """Blocks in ascending order. A group's last block reads on into the next group's rows; what it
    writes there is overwritten by that group's own blocks."""

    def write(start: Array, group: Array, size: Array, out: Array) -> Array:
        block = _slice(padded, start) @ weights[group]
        return jax.lax.dynamic_update_slice(out, block, (start, 0))

    padded = _pad(rows)
    out = jnp.zeros((len(padded), weights.shape[2]), jnp.result_type(rows, weights))
    return _for_each_block(sizes, write, out)[: len(rows)]


def _forward(rows: Array, weights: Array, sizes: Array) -> tuple[Array, tuple[Array, ...]]:
    return _by_blocks(rows, weights, sizes), (rows, weights, sizes)


def _backward(residuals: tuple[Array, ...], gradient: Array) -> tuple[Array, Array, None]:
    rows, weights, sizes = residuals
    padded, outer = _pad(rows), _pad(gradient)

    def write(start: Array, group: Array, size: Array, sums: tuple[Array, Array]) -> tuple:
        to_rows, to_weights = sums
        own = jnp.where(jnp.arange(BLOCK)[:, None] < size, _slice(outer, start), 0)
        block = _slice(outer, start) @ weights[group].T
        to_rows = jax.lax.dynamic_update_slice(to_rows, block.astype(rows.dtype), (start, 0))
        part = jnp.matmul(_slice(padded, start).T, own, preferred_element_type=jnp.float32)
        before = jax.lax.dynamic_slice(to_weights, (group, 0, 0), (1, *part.shape))
        return to_rows, jax.lax.dynamic_update_slice(to_weights, before + part, (group, 0, 0))

    zeros = jnp.zeros(padded.shape, rows.dtype), jnp.zeros(weights.shape, jnp.float32)
    to_rows, to_weights = _for_each_block(sizes, write, zeros)
    return to_rows[: len(rows)], to_weights.astype(weights.dtype), None


_by_blocks.defvjp(_forward, _backward)


def _for_each_block(sizes: Array, write: Callable[..., Any], out: Any) -> Any:
    """write(first row, group, rows of the group from there on, out) for every block, in order."""
    blocks = -(-sizes // BLOCK)
    until, first = jnp.cumsum(blocks), jnp.cumsum(sizes) - sizes

    def turn(i: Array, out: Any) -> Any:
        group = jnp.searchsorted(until, i, side="right")
        inside = (i - (until[group] - blocks[group])) * BLOCK
        return write(first[group] + inside, group, sizes[group] - inside, out)

    return jax.lax.fori_loop(0, until[-1], turn, out)


def _pad(rows: Array) -> Array:
    return jnp.pad(rows, ((0, BLOCK), (0, 0)))


_slice = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=BLOCK)
