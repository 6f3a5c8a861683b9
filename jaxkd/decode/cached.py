"""A decoder over a sequence piece by piece: what was seen is kept, not computed again."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxkd.core.outputs import Outputs
from jaxkd.models.attention import Cache
from jaxkd.models.config import Config
from jaxkd.models.model import Model, Params

Caches = tuple[Cache, ...]  # one a block


def empty(config: Config, rows: int, room: int) -> Caches:
    """Caches with room for `room` positions of `rows` sequences.

    Raises:
      ValueError: if the model has no causal attention, or fewer positions.
    """
    if not hasattr(config, "kv_heads"):
        raise ValueError(f"{config.family} is no decoder: it cannot go on piece by piece.")
    if room > config.max_length:
        raise ValueError(f"room for {room} positions; {config.family} has {config.max_length}.")
    width = config.head_width or config.width // config.heads
    shape = (rows, config.kv_heads or config.heads, room, width)
    zeros = jnp.zeros(shape, config.dtype)
    return tuple(Cache(zeros, zeros, jnp.zeros((), jnp.int32)) for _ in range(config.layers))


def advance(
    model: Model,
    params: Params,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B S"],
    caches: Caches,
) -> tuple[Outputs, Caches]:
    """The forward pass of the next L tokens of each row, after those the caches have seen.

    Args:
      mask: of all S positions there is room for, True on tokens seen and on these.
    Returns: what `models.model.forward` gives for these positions, and the caches after them.
    """
    start = caches[0].seen
    hidden: Any = model.embed.apply({"params": params["embed"]}, tokens, mask, start=start)
    states, after = [hidden], []
    for block, cache in zip(params["blocks"], caches, strict=True):
        hidden, cache = model.block.apply({"params": block}, hidden, mask, cache=cache)
        states.append(hidden)
        after.append(cache)
    here = jax.lax.dynamic_slice_in_dim(mask, start, tokens.shape[1], axis=1)
    logits = model.head.apply({"params": params["head"]}, hidden, params["embed"]["token"], here)
    return Outputs(logits=logits, hidden=tuple(states)), tuple(after)
