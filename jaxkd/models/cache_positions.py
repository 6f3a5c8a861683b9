"""Where the tokens of a cached step stand, one after the other or side by side."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CachePositions:
    """What L new tokens need to know of a cache with room for S.

    Beams of one sequence lie side by side: they take S columns of one cache, and each sees its own
    ancestors only, so that nothing is copied when a beam goes on from another.
    """

    start: Any  # scalar: the column the first of them is written to
    shown: Any  # [B, L, S] bool: the columns each of them sees
    positions: Any  # [B, L]: how many tokens its sequence had before it
    here: Any  # [B, L] bool, False on padding
    beside: bool = dataclasses.field(default=False, metadata=dict(static=True))  # not in a row


def sequential(mask: Bool[Array, "B S"], start: Any, length: int) -> CachePositions:
    """`length` tokens, one after the other from column `start`; the mask is of all S columns."""
    columns = start + jnp.arange(length)
    return CachePositions(
        start=start,
        shown=mask[:, None, :] & (jnp.arange(mask.shape[1]) <= columns[:, None]),
        positions=token_positions(mask, start, length),
        here=jax.lax.dynamic_slice_in_dim(mask, start, length, axis=1),
    )


def token_positions(mask: Bool[Array, "B S"], start: Any, length: int) -> Int[Array, "B L"]:
    """0, 1, 2 ... over tokens, so that padding moves nothing; of `length` columns from `start`."""
    counted = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
    return jax.lax.dynamic_slice_in_dim(counted, start, length, axis=1)
