"""Decode many rows in batches of similar length, returned in their original order."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxkd.core.batch import Batch
from jaxkd.decode.beam import Decoded
from jaxkd.models.model import Params


def decode_rows(
    write: Callable[[Params, Batch], Decoded],
    params: Params,
    batch_of: Callable[[Int[np.ndarray, " B"]], Batch],
    lengths: Sequence[int] | Int[np.ndarray, " rows"],
    *,
    batch_size: int,
    before: Callable[[], Any] = lambda: None,
) -> Decoded:
    """Decode rows 0, 1, 2 ...; the longest first, so that too little memory shows at once.

    Args:
      write: a search or a sampler of decode/, called with parameters and a batch.
      batch_of: the batch of these rows.
      lengths: tokens of each row.
      batch_size: rows at a time; the last batch repeats a row to be as large.
      before: called before each batch; may raise.
    Returns: numpy arrays [rows, N, ...].
    Raises:
      ValueError: if there are no rows.
    """
    if len(lengths) == 0:
        raise ValueError("there are no rows to decode.")
    batches: list[tuple[np.ndarray, Decoded]] = []
    for chosen in by_length(lengths, batch_size):
        before()
        filled = np.resize(chosen, batch_size)
        made = jax.device_get(write(params, batch_of(filled)))
        batches.append((chosen, jax.tree.map(lambda x, chosen=chosen: x[: len(chosen)], made)))
    order = np.argsort(np.concatenate([chosen for chosen, _ in batches]), kind="stable")
    parts = [made for _, made in batches]
    return jax.tree.map(lambda *each: np.concatenate(each)[order], *parts)


def by_length(
    lengths: Sequence[int] | Int[np.ndarray, " rows"], batch_size: int
) -> Iterator[Int[np.ndarray, " B"]]:
    """Numbers of rows, longest first, `batch_size` at a time.

    >>> [batch.tolist() for batch in by_length([3, 9, 5], 2)]
    [[1, 2], [0]]
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def texts_of(decoded: Decoded, decode: Callable[[Sequence[int]], str]) -> list[list[str]]:
    """The texts of each row, best first."""
    return [
        [decode(tokens[:length].tolist()) for tokens, length in zip(*row, strict=True)]
        for row in zip(decoded.tokens, decoded.lengths, strict=True)
    ]


def as_fields(decoded: Decoded) -> dict[str, np.ndarray]:
    """Its arrays by name."""
    return {each.name: getattr(decoded, each.name) for each in dataclasses.fields(decoded)}
