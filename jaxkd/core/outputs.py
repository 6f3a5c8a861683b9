"""What a model returns: logits and every intermediate a loss may want, never sown."""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
    """Everything one forward pass computed.

    `hidden[0]` is the embeddings' output, `hidden[i]` that of block i-1, so a model of N layers
    has N + 1 of them.
    """

    logits: Any  # [B, K, V] at the target positions, [B, L, V] where a batch names none
    hidden: tuple[Any, ...]  # N + 1 arrays [B, L, D]
    attention: tuple[Any, ...] = ()  # N arrays [B, H, L, S]; none of blocks LayerDrop may skip
    cross: tuple[Any, ...] = ()  # N arrays [B, H, L, S], over what the encoder read
    encoder: "Outputs | None" = None  # of an encoder-decoder: the encoder's (logits None)
