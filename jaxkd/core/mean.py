"""Means that stay exact however the data was split: carried as total and count, divided last."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
    """A sum and the number of values in it; merge with `+`, divide with `compute()`.

    >>> float((Mean(total=4.0, count=4.0) + Mean(total=6.0, count=60.0)).compute())
    0.15625
    """

    total: Any  # scalar
    count: Any  # scalar

    @classmethod
    def of(cls, values: Float[Array, "*B"], mask: Bool[Array, "*B"]) -> "Mean":
        """Mean of the values where the mask is True; what is masked may be nan or inf."""
        return cls(total=jnp.sum(jnp.where(mask, values, 0.0)), count=jnp.sum(mask, dtype=float))

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)

    def compute(self) -> Any:
        """total / count; 0 where nothing was counted."""
        # jnp would round a host's float64 to float32.
        maximum = jnp.maximum if isinstance(self.count, jax.Array) else np.maximum
        return self.total / maximum(self.count, 1)
