"""Rotary position embeddings (Su et al., 2021), and how Llama 3 stretches them."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

KINDS = ("default", "linear", "llama3")


@dataclasses.dataclass(frozen=True)
class Rotary:
    """The frequencies of heads of one width."""

    head_width: int
    theta: float = 10000.0
    kind: str = "default"  # linear: all frequencies / factor; llama3: the low ones only
    factor: float = 1.0
    low: float = 1.0  # llama3: longer waves than original / low are stretched by `factor`
    high: float = 4.0  # llama3: shorter waves than original / high are left alone
    original: int = 8192  # llama3: the length the model was first trained at

    def frequencies(self) -> Float[np.ndarray, " pairs"]:
        """Radians a position, for each pair of dimensions."""
        exponent = np.arange(0, self.head_width, 2, dtype=np.float32) / self.head_width
        plain = (1.0 / self.theta**exponent).astype(np.float32)
        if self.kind == "linear":
            return plain / np.float32(self.factor)
        if self.kind == "llama3":
            turns = self.original * plain / (2 * math.pi)  # within the original length
            kept = np.clip((turns - self.low) / (self.high - self.low), 0.0, 1.0)
            return ((1 - kept) * plain / self.factor + kept * plain).astype(np.float32)
        return plain

    def __call__(
        self, heads: Float[Array, "B H L K"], positions: Int[Array, "B L"]
    ) -> Float[Array, "B H L K"]:
        """Turn dimension i with i + K/2, as HuggingFace's weights are laid out."""
        angle = positions[:, None, :, None] * jnp.asarray(self.frequencies())
        cos, sin = jnp.cos(angle).astype(heads.dtype), jnp.sin(angle).astype(heads.dtype)
        first, second = jnp.split(heads, 2, axis=-1)
        return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def check_head_width(family: str, head_width: int) -> None:
    """Raise ValueError for heads whose channels cannot be turned in pairs."""
    if head_width % 2:
        raise ValueError(
            f"{family}: attention heads are {head_width} wide; rotary embeddings turn channels in "
            "pairs, so the width of a head is even. Change heads or the width."
        )
