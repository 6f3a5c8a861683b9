"""Documents of any length -> rows of one length, without mixing documents."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int


def pack(
    documents: Iterable[Int[np.ndarray, " _"]], *, length: int, cls: int, sep: int, pad: int
) -> Int[np.ndarray, "rows {length}"]:
    """Rows `[CLS] tokens [SEP]`, each document cut into as few as it needs; its last row padded.

    Every token stands in exactly one row, in order. No row holds two documents, so attention
    never crosses from one article into another.

    Raises:
      ValueError: if length leaves no room between [CLS] and [SEP].

    >>> pack([np.arange(10, 14)], length=4, cls=1, sep=2, pad=0)
    array([[ 1, 10, 11,  2],
           [ 1, 12, 13,  2]], dtype=int32)
    """
    room = length - 2
    if room < 1:
        raise ValueError(f"data.length is {length}; [CLS], one token and [SEP] need at least 3.")
    rows = []
    for tokens in documents:
        for start in range(0, len(tokens), room):
            piece = tokens[start : start + room]
            row = np.full(length, pad, np.int32)
            row[0], row[1 : 1 + len(piece)], row[1 + len(piece)] = cls, piece, sep
            rows.append(row)
    return np.stack(rows) if rows else np.zeros((0, length), np.int32)
