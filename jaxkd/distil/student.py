"""Where a student starts: a teacher's embedding and head, and some of its blocks."""

from collections.abc import Sequence

from jaxkd.core.names import did_you_mean
from jaxkd.models.model import Params

RULES = {
    "every_other": lambda n: list(range(0, n, 2)),
    "first_half": lambda n: list(range((n + 1) // 2)),
    "last_half": lambda n: list(range(n // 2, n)),
}


def kept_blocks(layers: int, keep: str | Sequence[int]) -> list[int]:
    """Which of `layers` blocks a student keeps, in order.

    Args:
      keep: a rule (every_other: 0, 2, 4 ...), or numbers as a sequence or as "0,2,3".
    Raises:
      ValueError: for an unknown rule, a block the teacher does not have, or none at all.

    >>> kept_blocks(4, "every_other"), kept_blocks(12, "0,2,4,7,9,11")
    ([0, 2], [0, 2, 4, 7, 9, 11])
    """
    if isinstance(keep, str) and keep in RULES:
        return RULES[keep](layers)
    try:
        chosen = [int(i) for i in (keep.split(",") if isinstance(keep, str) else keep)]
    except ValueError:
        raise ValueError(
            f"keep={keep!r} is neither a rule nor block numbers like '0,2,3'. "
            f"{did_you_mean(str(keep), RULES)}"
        ) from None
    outside = [i for i in chosen if not 0 <= i < layers]
    if outside or not chosen:
        raise ValueError(
            f"keep={keep!r} asks for block {outside or 'none'}; the source has blocks 0 to "
            f"{layers - 1}."
        )
    return chosen


def prune(params: Params, blocks: Sequence[int]) -> Params:
    """The same embedding and head around the chosen blocks; nothing is copied.

    A list of one block that serves all layers (ALBERT) stays: fewer layers then are fewer turns.
    """
    if len(params["blocks"]) == 1:
        return params
    return params | {"blocks": [params["blocks"][i] for i in blocks]}
