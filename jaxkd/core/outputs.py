"""What a model returns: logits and every intermediate a loss may need, never sown."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxkd.core.backend import cpu_workarounds


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Projection:
    """The last layer of a vocabulary head, not yet applied: logits = features @ matrix.T + bias."""

    features: Any  # [*B, E]
    matrix: Any  # [V, E]: each token's vector
    bias: Any = None  # [V], if there is one

    def logits(self) -> Any:
        """Products with each token's vector, [*B, V] float32.

        Vocabulary first: the products, and the losses' sums over the vocabulary, then take half
        the time on a CPU (see losses/vocabulary.py); elsewhere the axes are only named otherwise.
        """
        flat = self.features.reshape(-1, self.features.shape[-1])
        matrix = self.matrix.astype(flat.dtype)
        logits = jax.lax.dot_general(
            matrix, flat, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
        if flat.dtype == jnp.bfloat16 and cpu_workarounds():
            # Merged with what follows, XLA (jax 0.10.2) multiplies in float32: 3.5 times as long
            # for 58,101 tokens and 256 positions of width 512.
            logits = jax.lax.optimization_barrier(logits)
        logits = logits if self.bias is None else logits + self.bias[:, None]
        return jnp.moveaxis(logits.reshape(-1, *self.features.shape[:-1]), 0, -1)


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
    cross: tuple[Any, ...] = ()  # N arrays [B, H, L, S], over the encoder's positions
    qkv: tuple[Any, ...] = ()  # N x (queries [B, H, L, K], keys, values [B, G, L, K])
    context: tuple[Any, ...] = ()  # N arrays [B, L, H K]: each head's weighted values
    ffn_activations: tuple[Any, ...] = ()  # N arrays [B, L, F], where blocks have one feed-forward
    encoder: "Outputs | None" = None  # of an encoder-decoder: no logits; hidden, attention
    projection: Projection | None = None  # of a head over the vocabulary: `logits` before products
    exits: Any = dataclasses.field(default_factory=dict)  # logits [B, C] of early exits, by head
    sparse: Any = None  # a stored teacher's TopK or Draws, instead of logits (stored_targets.py)
