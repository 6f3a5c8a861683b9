"""Early exits of a model: further heads, by the blocks after which they predict."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxkd.models.model import Model
from jaxkd.models.parts import Params, exit_blocks, exit_name


def add_exits(model: Model, config: Any) -> Model:
    """The model with a head of the same kind after each block of `config.exits`.

    With `exit_pooler="shared"` an exit is a classifier alone, and the layers before it are the
    head's (Zhou et al., 2020, arXiv:2006.04152).
    """
    kind = config.known_heads[config.head]
    exits = {exit_name(i): kind(config) for i in config.exits}
    reads = dict.fromkeys(exits, config.exit_reads) | {"head": config.head_reads}
    return dataclasses.replace(
        model,
        heads={**model.heads, **exits},
        shared_head=bool(exits) and config.exit_pooler == "shared",
        mean_readers=frozenset(name for name, what in reads.items() if what == "mean"),
    )


def prune_exits(params: Params, blocks: Sequence[int], *, shared_blocks: bool) -> Params:
    """The parameters whose exits are those of the kept blocks, by their new numbers.

    The last block's exit becomes the head: it was trained on that block's states, the head was not.

    Args:
      blocks: the kept ones by their numbers before, in order.
      shared_blocks: one block is applied several times, and has an exit for each turn.
    """
    known = exit_blocks(params)
    kept = {name: part for name, part in params.items() if name not in known}
    before = list(range(len(blocks))) if shared_blocks else list(blocks)
    for i, block in enumerate(before):
        part = params.get(exit_name(block))
        if part is not None and i < len(before) - 1:
            kept[exit_name(i)] = part
        elif part is not None:
            kept["head"] = {**params["head"], **part}
    return kept
