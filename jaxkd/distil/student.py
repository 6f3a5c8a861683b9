"""A student's first parameters: a teacher's embedding and head, some of its blocks and tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxkd.core.names import did_you_mean
from jaxkd.core.tree import map_named
from jaxkd.models import axes
from jaxkd.models.exits import prune_exits
from jaxkd.models.parts import Params, check_keys, exit_blocks

RULES = {
    "every_other": lambda n: list(range(0, n, 2)),
    "first_half": lambda n: list(range((n + 1) // 2)),
    "last_half": lambda n: list(range(n // 2, n)),
}


def kept_blocks(layers: int, keep: str | Sequence[int]) -> list[int]:
    """Which of `layers` blocks a student keeps, in order.

    Args:
      keep: a rule (every_other: 0, 2, 4 ...; "evenly 3": three, the first and the last among
        them), or numbers as a sequence or as "0,2,3".
    Raises:
      ValueError: for an unknown rule, a block the teacher does not have, or none at all.

    >>> kept_blocks(4, "every_other"), kept_blocks(12, "0,2,4,7,9,11")
    ([0, 2], [0, 2, 4, 7, 9, 11])
    >>> kept_blocks(12, "evenly 3")
    [0, 6, 11]
    """
    if isinstance(keep, str) and keep in RULES:
        return RULES[keep](layers)
    if isinstance(keep, str) and keep.startswith("evenly "):
        return _evenly(layers, keep)
    try:
        chosen = [int(i) for i in (keep.split(",") if isinstance(keep, str) else keep)]
    except ValueError:
        raise ValueError(
            f"keep={keep!r} is neither a rule nor block numbers like '0,2,3'. "
            f"{did_you_mean(str(keep), [*RULES, 'evenly N'])}"
        ) from None
    outside = [i for i in chosen if not 0 <= i < layers]
    if outside or not chosen:
        raise ValueError(
            f"keep={keep!r} names block {outside or 'none'}; the source has blocks 0 to "
            f"{layers - 1}."
        )
    return chosen


def _evenly(layers: int, keep: str) -> list[int]:
    number = keep.removeprefix("evenly ").strip()
    if not number.isdecimal() or not 1 <= int(number) <= layers:
        raise ValueError(
            f"keep={keep!r}: the source has {layers} blocks; write 'evenly N' with N from 1 to "
            f"{layers}."
        )
    return [round(float(i)) for i in np.linspace(0, layers - 1, int(number))]


def prune(params: Params, blocks: Sequence[int]) -> Params:
    """The same embedding and head around the chosen blocks; nothing is copied.

    A list of one block that serves all layers (ALBERT) stays: fewer layers then are fewer
    applications of it. An encoder stays whole. Early exits stay with their blocks; that of the last
    kept block becomes the head. `Config.keep(blocks)` is the config of the result.

    Raises:
      ValueError: if the parameters have anything that is no part of a model.
    """
    check_keys(params, ("head", *exit_blocks(params)))
    shared = len(params["blocks"]) == 1
    params = prune_exits(params, blocks, shared_blocks=shared)
    if shared:
        return params
    return params | {"blocks": [params["blocks"][i] for i in blocks]}


def trim_vocabulary(params: Params, kept: Int[np.ndarray, " kept"]) -> Params:
    """The model over the kept tokens alone: row i of its embedding is token kept[i]'s.

    Every axis of the vocabulary (V in models/axes.py) is cut: of the embedding, of a vocabulary
    head's bias and matrix. Hidden states of texts of kept tokens, and the kept tokens' logits,
    stay what they were.

    Raises:
      ValueError: if a parameter has no row in models/axes.py, or an id is not in the vocabulary.
    """
    size = len(params["embed"]["token"])
    outside = [int(i) for i in kept if not 0 <= i < size]
    if outside:
        raise ValueError(f"tokens {outside[:4]} are kept, and the vocabulary has {size}.")

    def cut(name: str, leaf: Any) -> Any:
        letters = axes.axes(name, np.ndim(leaf))
        return leaf[(slice(None),) * letters.index("V") + (kept,)] if "V" in letters else leaf

    return map_named(cut, params)
