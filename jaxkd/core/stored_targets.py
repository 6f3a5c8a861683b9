"""A teacher's stored outputs for a batch, used instead of its forward pass."""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class States:
    """Last hidden states, to which the teacher's head is applied again."""

    hidden: Any  # [B, K, D] at the target positions; [B, L, D] where a batch names none


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hidden:
    """Hidden states after some of the teacher's blocks."""

    # As `Outputs.hidden`, the embedding's first: [B, L, D] each, None where it was not stored.
    states: tuple[Any, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scores:
    """All logits of a classifier."""

    logits: Any  # [B, C] float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TopK:
    """The likeliest tokens at each target, and the rest of the probability, the tail."""

    ids: Any  # [*B, k] int32
    log_p: Any  # [*B, k + 1] float32, at temperature 1; the tail's is last


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draws:
    """Tokens drawn from the teacher's distribution at each target, with replacement."""

    ids: Any  # [*B, n] int32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NBest:
    """The likeliest label sequences of each row, of a CTC model."""

    ids: Any  # [B, n, L] int32, filled up with the blank
    log_p: Any  # [B, n] float32; the smallest float32 where there are fewer than n


StoredTargets = States | Hidden | Scores | TopK | Draws | NBest
SPARSE = (TopK, Draws)  # of the vocabulary only some tokens
