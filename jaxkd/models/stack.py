"""Blocks as one stacked tree, for models that scan over them, and back to the list."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def stack(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters with the arrays of all blocks stacked: {"blocks": {name: [N, ...]}}.

    An encoder-decoder's two lists are each stacked.

    Raises:
      ValueError: if the blocks of a list differ in shape (a student pruned in width).
    """
    return _map_blocks(params, stacked_blocks)


def unstack(params: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `stack`: the list, which checkpoints, pruning and hub folders work on."""
    return _map_blocks(params, listed_blocks)


def _map_blocks(params: dict[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    changed = params | {"blocks": function(params["blocks"])}
    if "encoder" in params:
        changed["encoder"] = _map_blocks(params["encoder"], function)
    return changed


def stacked_blocks(blocks: Any) -> Any:
    """A list of blocks as one tree, on the host if they are; a tree is returned as it is."""
    if not isinstance(blocks, list):
        return blocks
    kinds = {str(jax.tree.map(np.shape, block)) for block in blocks}
    if len(kinds) > 1:
        raise ValueError(
            "scan_layers needs blocks of one shape, and these differ: set scan_layers=False."
        )
    on_host = all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(blocks))
    return jax.tree.map(lambda *leaves: (np if on_host else jnp).stack(leaves), *blocks)


def listed_blocks(blocks: Any) -> list[Any]:
    """The list of blocks of a stacked tree; a list is returned as it is."""
    if isinstance(blocks, list):
        return blocks
    count = len(jax.tree.leaves(blocks)[0])
    return [jax.tree.map(lambda leaf, i=i: leaf[i], blocks) for i in range(count)]
