"""Forward passes piece by piece: keys and values of earlier tokens are kept in a cache."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxkd.core.outputs import Outputs
from jaxkd.models.cache_positions import CachePositions
from jaxkd.models.config import Config
from jaxkd.models.model import Model, Params
from jaxkd.models.stack import listed_blocks

Caches = tuple[Any, ...]  # one of every block


def empty(config: Config, rows: int, room: int, memory: int = 0, *, positions: int = 0) -> Caches:
    """Caches with room for `room` tokens of each of `rows` sequences.

    Args:
      memory: positions of the encoder, for an encoder-decoder.
      positions: the longest sequence, where beams share the room; 0: as long as the room.
    Raises:
      ValueError: if the model is no decoder, or has fewer positions.
    """
    if not hasattr(config, "cache"):
        raise ValueError(f"{config.family} is no decoder: it has no cache.")
    positions = positions or room
    if positions > config.max_length:
        raise ValueError(
            f"room for {positions} positions; {config.family} has {config.max_length}."
        )
    encodes = hasattr(config, "encoder_layers")
    if encodes != bool(memory):
        raise ValueError(
            f"memory={memory}: {config.family} "
            + ("has an encoder; give its number of positions." if encodes else "has no encoder.")
        )
    sizes = (rows, room, memory) if encodes else (rows, room)
    return tuple(config.block(i).cache(*sizes) for i in range(config.layers))


def advance(
    model: Model,
    params: Params,
    tokens: Int[Array, "B L"],
    cache_positions: CachePositions,
    caches: Caches,
    *,
    at: Int[Array, "B K"] | None = None,
    memory: Float[Array, "B M D"] | None = None,
    memory_mask: Bool[Array, "B M"] | None = None,
) -> tuple[Outputs, Caches]:
    """The forward pass of L more tokens of each row: the next ones, or those of L beams.

    Args:
      cache_positions: of the tokens; `models.cache_positions.sequential` makes them of a mask.
      at: which of the L get logits; None: all.
      memory: an encoder-decoder's last encoder states; the first call needs them, later ones have
        their keys and values in the caches.
      memory_mask: an encoder-decoder needs it in every call.
    Returns: what `models.model.forward` gives for these positions, and the caches after them.
    """
    embed = {"params": params["embed"]}
    hidden, block_inputs = model.embed.apply(embed, tokens, None, cache_positions=cache_positions)
    if model.encoder is not None:
        block_inputs = block_inputs | {"memory": memory, "memory_mask": memory_mask}
    states, insides = [hidden], []
    blocks = listed_blocks(params["blocks"])
    for module, block, cache in zip(model.blocks, blocks, caches, strict=True):
        hidden, inside = module.apply(
            {"params": block}, hidden, None, cache=cache, cache_positions=cache_positions,
            **block_inputs,
        )  # fmt: skip
        states.append(hidden)
        insides.append(inside)
    token_mask = cache_positions.token_mask
    if at is not None:
        hidden = jnp.take_along_axis(hidden, at[..., None], axis=1)
        token_mask = jnp.take_along_axis(token_mask, at, axis=1)
    token = params["embed"]["token"]
    logits = model.head.apply({"params": params["head"]}, hidden, token, token_mask)
    maps = (tuple(getattr(inside, of) for inside in insides) for of in ("attention", "cross"))
    attention, cross = (() if each[0] is None else each for each in maps)
    outputs = Outputs(logits=logits, hidden=tuple(states), attention=attention, cross=cross)
    return outputs, tuple(inside.cache for inside in insides)


def grown(config: Config, caches: Caches, rows: int, room: int) -> Caches:
    """The same with room for more tokens; the encoder's part stays as it is."""
    sizes = (rows, room, 1) if hasattr(config, "encoder_layers") else (rows, room)

    def pad(old: Array, new: Any) -> Array:
        return jnp.pad(old, [(0, max(0, b - a)) for a, b in zip(old.shape, new.shape, strict=True)])

    def larger(i: int, cache: Any) -> Any:
        needed = jax.eval_shape(lambda: config.block(i).cache(*sizes))
        return jax.tree.map(pad, cache, needed)

    return tuple(larger(i, cache) for i, cache in enumerate(caches))
