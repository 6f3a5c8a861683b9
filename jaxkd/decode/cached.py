"""A model over a sequence piece by piece: what was seen is kept, not computed again."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxkd.core.outputs import Outputs
from jaxkd.models.cache_positions import CachePositions
from jaxkd.models.config import Config
from jaxkd.models.model import Model, Params
from jaxkd.models.stack import listed_blocks

Caches = tuple[Any, ...]  # what every block keeps


def empty(config: Config, rows: int, room: int, memory: int = 0, *, positions: int = 0) -> Caches:
    """Caches with room for `room` tokens of each of `rows` sequences.

    Args:
      memory: positions the encoder reads, for an encoder-decoder.
      positions: the longest a sequence gets, where beams share the room; 0: as long as the room.
    Raises:
      ValueError: if the model cannot go on piece by piece, or has fewer positions.
    """
    if not hasattr(config, "cache"):
        raise ValueError(f"{config.family} is no decoder: it cannot go on piece by piece.")
    positions = positions or room
    if positions > config.max_length:
        raise ValueError(
            f"room for {positions} positions; {config.family} has {config.max_length}."
        )
    reads = hasattr(config, "encoder_layers")
    if reads != bool(memory):
        raise ValueError(
            f"memory={memory}: {config.family} "
            + (
                "reads with an encoder; give the number of positions."
                if reads
                else "reads nothing."
            )
        )
    sizes = (rows, room, memory) if reads else (rows, room)
    return (config.cache(*sizes),) * config.layers


def advance(
    model: Model,
    params: Params,
    tokens: Int[Array, "B L"],
    places: CachePositions,
    caches: Caches,
    *,
    at: Int[Array, "B K"] | None = None,
    memory: Float[Array, "B M D"] | None = None,
    memory_mask: Bool[Array, "B M"] | None = None,
) -> tuple[Outputs, Caches]:
    """The forward pass of L more tokens of each row, one after the other or side by side.

    Args:
      places: where they stand; `models.places.sequential` makes them of a mask.
      at: which of the L get logits; None: all.
      memory: an encoder-decoder's last encoder states; the first call needs them, later ones find
        their keys and values in the caches.
      memory_mask: an encoder-decoder needs it in every call.
    Returns: what `models.model.forward` gives for these positions, and the caches after them.
    """
    given = {} if model.encoder is None else {"memory": memory, "memory_mask": memory_mask}
    hidden: Any = model.embed.apply({"params": params["embed"]}, tokens, None, places=places)
    states, insides = [hidden], []
    for block, cache in zip(listed_blocks(params["blocks"]), caches, strict=True):
        hidden, inside = model.block.apply(
            {"params": block}, hidden, None, cache=cache, places=places, **given
        )
        states.append(hidden)
        insides.append(inside)
    here = places.here
    if at is not None:
        hidden = jnp.take_along_axis(hidden, at[..., None], axis=1)
        here = jnp.take_along_axis(here, at, axis=1)
    logits = model.head.apply({"params": params["head"]}, hidden, params["embed"]["token"], here)
    maps = (tuple(getattr(inside, of) for inside in insides) for of in ("attention", "cross"))
    attention, cross = (() if each[0] is None else each for each in maps)
    outputs = Outputs(logits=logits, hidden=tuple(states), attention=attention, cross=cross)
    return outputs, tuple(inside.cache for inside in insides)


def grown(config: Config, caches: Caches, rows: int, room: int) -> Caches:
    """The same with room for more tokens; what an encoder read stays as it is."""
    sizes = (rows, room, 1) if hasattr(config, "encoder_layers") else (rows, room)
    wanted = jax.eval_shape(lambda: config.cache(*sizes))

    def pad(old: Array, new: Any) -> Array:
        return jnp.pad(old, [(0, max(0, b - a)) for a, b in zip(old.shape, new.shape, strict=True)])

    return tuple(jax.tree.map(pad, cache, wanted) for cache in caches)
