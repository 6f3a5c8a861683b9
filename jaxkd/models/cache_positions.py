"""Positions of the tokens of a cached step: one after the other, or parallel beams side by side."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CachePositions:
    """What L new tokens need to know of a cache with room for S.

    Beams of one sequence share the S columns of one cache, and each attends to its own ancestors
    only, so that nothing is copied when a beam continues another.
    """

    start: Any  # scalar: the column the first of them is written to
    attention_mask: Any  # [B, L, S] bool: the columns each of them attends to
    positions: Any  # [B, L]: how many tokens its sequence had before it
    token_mask: Any  # [B, L] bool, False on padding
    # Whether the L tokens are those of parallel beams, not a sequence.
    parallel_beams: bool = dataclasses.field(default=False, metadata=dict(static=True))

    @property
    def column_positions(self) -> Int[Array, "B L S"]:
        """The position of each column's token, for the columns that a token attends to.

        Columns are in the order of their tokens, and a token attends to its whole past.
        """
        return jnp.cumsum(self.attention_mask, axis=-1) - 1


def sequential(mask: Bool[Array, "B S"], start: Any, length: int) -> CachePositions:
    """`length` tokens, one after the other from column `start`; the mask is of all S columns."""
    columns = start + jnp.arange(length)
    return CachePositions(
        start=start,
        attention_mask=mask[:, None, :] & (jnp.arange(mask.shape[1]) <= columns[:, None]),
        positions=token_positions(mask, start, length),
        token_mask=jax.lax.dynamic_slice_in_dim(mask, start, length, axis=1),
    )


def token_positions(mask: Bool[Array, "B S"], start: Any, length: int) -> Int[Array, "B L"]:
    """0, 1, 2 ... counted over tokens, not padding; of `length` columns from `start`."""
    counted = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
    return jax.lax.dynamic_slice_in_dim(counted, start, length, axis=1)
