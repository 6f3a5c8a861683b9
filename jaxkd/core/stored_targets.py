"""What a teacher said of a batch before: targets out of a store, instead of a forward pass."""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class States:
    """Last hidden states, from which the teacher's own head makes its predictions again."""

    hidden: Any  # [B, K, D] at the target positions; [B, L, D] where a batch names none


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scores:
    """Logits of few classes, whole."""

    logits: Any  # [B, C] float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TopK:
    """The likeliest tokens at each target, and what is left of the probability, their tail."""

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
    """The likeliest hypotheses of each row, of a model that names labels at places (CTC)."""

    ids: Any  # [B, n, L] int32, filled up with the blank
    log_p: Any  # [B, n] float32; the lowest number there is where there were fewer


StoredTargets = States | Scores | TopK | Draws | NBest
SPARSE = (TopK, Draws)  # of the vocabulary only some tokens
