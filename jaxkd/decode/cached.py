"""A model over a sequence piece by piece: what was seen is kept, not computed again."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxkd.core.outputs import Outputs
from jaxkd.models.config import Config
from jaxkd.models.model import Model, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Caches:
    """What every block keeps, and how many positions that is."""

    seen: Any  # scalar int32
    blocks: tuple[Any, ...]


def empty(config: Config, rows: int, room: int, memory: int = 0) -> Caches:
    """Caches with room for `room` positions of `rows` sequences.

    Args:
      memory: positions the encoder reads, for an encoder-decoder.
    Raises:
      ValueError: if the model cannot go on piece by piece, or has fewer positions.
    """
    if not hasattr(config, "cache"):
        raise ValueError(f"{config.family} is no decoder: it cannot go on piece by piece.")
    if room > config.max_length:
        raise ValueError(f"room for {room} positions; {config.family} has {config.max_length}.")
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
    return Caches(jnp.zeros((), jnp.int32), (config.cache(*sizes),) * config.layers)


def advance(
    model: Model,
    params: Params,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B S"],
    caches: Caches,
    *,
    memory: Float[Array, "B M D"] | None = None,
    memory_mask: Bool[Array, "B M"] | None = None,
) -> tuple[Outputs, Caches]:
    """The forward pass of the next L tokens of each row, after those the caches have seen.

    Args:
      mask: of all S positions there is room for, True on tokens seen and on these.
      memory: an encoder-decoder's last encoder states; the first call needs them, later ones find
        their keys and values in the caches.
      memory_mask: an encoder-decoder needs it in every call.
    Returns: what `models.model.forward` gives for these positions, and the caches after them.
    """
    start = caches.seen
    given = {} if model.encoder is None else {"memory": memory, "memory_mask": memory_mask}
    hidden: Any = model.embed.apply({"params": params["embed"]}, tokens, mask, start=start)
    states, insides = [hidden], []
    for block, cache in zip(params["blocks"], caches.blocks, strict=True):
        hidden, inside = model.block.apply(
            {"params": block}, hidden, mask, cache=cache, start=start, **given
        )
        states.append(hidden)
        insides.append(inside)
    here = jax.lax.dynamic_slice_in_dim(mask, start, tokens.shape[1], axis=1)
    logits = model.head.apply({"params": params["head"]}, hidden, params["embed"]["token"], here)
    maps = (tuple(getattr(inside, of) for inside in insides) for of in ("attention", "cross"))
    attention, cross = (() if each[0] is None else each for each in maps)
    outputs = Outputs(logits=logits, hidden=tuple(states), attention=attention, cross=cross)
    return outputs, Caches(start + tokens.shape[1], tuple(inside.cache for inside in insides))
