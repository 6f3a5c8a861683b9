"""The parts of a model by name: embed, block_00 ..., head, and back to the parameters.

Checkpoints, pruning and exports go by these names, and refuse a part that the model does not have.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from jaxkd.core.names import did_you_mean
from jaxkd.models.stack import listed_blocks

# {"embed": ..., "blocks": [...], "head": ...} and one more key for each further head, by its name;
# an encoder-decoder's blocks are the decoder's, and "encoder" has the same keys for its own.
# Blocks may also be one stacked tree (stack.py).
Params = dict[str, Any]
ENCODER = "encoder"
_EXIT = re.compile(r"exit_(\d+)")


def parts(
    params: Params, heads: Iterable[str] = ("head",), encoder_heads: Iterable[str] = ()
) -> dict[str, Any]:
    """Each part once, by name: "embed", "block_00" ..., "head", "encoder_embed" ...

    A part without parameters is left out.

    Args:
      heads: names of the heads the model has; `encoder_heads`: those of its encoder.
    Raises:
      ValueError: if the parameters have a key that is no part.
    """
    check_keys(params, heads)
    named = {f"block_{i:02d}": block for i, block in enumerate(listed_blocks(params["blocks"]))}
    named = {"embed": params["embed"], **named}
    named |= {name: params[name] for name in heads if name in params}
    if ENCODER in params:
        inner = parts(params[ENCODER], encoder_heads)
        named |= {f"{ENCODER}_{name}": part for name, part in inner.items()}
    return {name: part for name, part in named.items() if jax.tree.leaves(part)}


def exit_name(block: int) -> str:
    """The name of the head after a block: exit_03."""
    return f"exit_{block:02d}"


def exit_blocks(heads: Iterable[str]) -> dict[str, int]:
    """The exits among these heads, each with its block, in the order of the blocks.

    >>> exit_blocks(["head", "exit_04", "exit_01"])
    {'exit_01': 1, 'exit_04': 4}
    """
    named = {name: int(match[1]) for name in heads if (match := _EXIT.fullmatch(name))}
    return dict(sorted(named.items(), key=lambda entry: entry[1]))


def check_keys(params: Params, heads: Iterable[str] = ("head",)) -> None:
    """Raise ValueError unless all keys of the parameters are embed, blocks, encoder or a head."""
    known = ("embed", "blocks", ENCODER, *heads)
    for key in params:
        if key not in known:
            raise ValueError(f"the parameters have {key!r}. {did_you_mean(key, known)}")


def join(
    named: Mapping[str, Any], heads: Iterable[str] = ("head",), encoder_heads: Iterable[str] = ()
) -> Params:
    """The parameters whose `parts` are these; a head without parameters is {}.

    Raises:
      ValueError: for a part that is no embedding, block or head of the model, or a missing block.
    """
    inner, params = {}, {"embed": {}, "blocks": [], **{name: {} for name in heads}}
    blocks = {}
    for name, part in named.items():
        if name.startswith(f"{ENCODER}_"):
            inner[name.removeprefix(f"{ENCODER}_")] = part
        elif re.fullmatch(r"block_\d+", name):
            blocks[int(name.removeprefix("block_"))] = part
        elif name in params and name != "blocks":
            params[name] = part
        else:
            known = ("embed", "block_NN", *heads)
            raise ValueError(f"there is a part {name!r}. {did_you_mean(name, known)}")
    missing = set(range(len(blocks))) - blocks.keys()
    if missing:
        raise ValueError(
            f"there is a block_{max(blocks):02d} and no block_{min(missing):02d}; a part is lost."
        )
    params["blocks"] = [blocks[i] for i in range(len(blocks))]
    return params | ({ENCODER: join(inner, encoder_heads)} if inner else {})
