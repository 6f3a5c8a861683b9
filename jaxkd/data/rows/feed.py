"""Rows -> batches: an endless shuffled stream for training, one ordered pass for evaluation."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxkd.core.batch import Batch
from jaxkd.core.random import numpy_stream
from jaxkd.core.stored_targets import StoredTargets

RowArray = Int[np.ndarray, "rows C"]
# What is made of some rows, with randomness of its own: masks, or the same rows shifted.
MakeBatch = Callable[[RowArray, np.random.Generator], Batch]
# What a teacher stored for the rows of these numbers (teacher_store.py), as the batch shows them.
Recall = Callable[[Int[np.ndarray, " B"], Batch], StoredTargets]


def permutation(seed: int, epoch: int, rows: int) -> Int[np.ndarray, " rows"]:
    """The order of an epoch: a function of seed and epoch, so that no two seeds share one.

    Grain's own `shuffle(seed).repeat()` shuffles epoch e of seed s with s + e, so that the second
    epoch of seed 0 is the first of seed 1.
    """
    return numpy_stream(seed, "order", epoch).permutation(rows)


class Training:
    """Batches of step 0, 1, 2, ...; batch k of a seed is the same whenever it is made.

    Each epoch is shuffled anew; batch k is drawn with randomness derived from (seed, k) alone, so
    a row is masked differently each time it comes round. Grain reads ahead on its own threads, and
    the host never makes the device wait.
    """

    def __init__(
        self,
        rows: RowArray,
        draw: MakeBatch,
        *,
        seed: int,
        batch_size: int,
        lengths: Int[np.ndarray, " rows"] | None = None,
        repeated: Callable[[Int[np.ndarray, " B"]], Batch] | None = None,
        recall: Recall | None = None,
    ):
        """With `lengths` a batch's rows are of like length (see `length_buckets`).

        Args:
          repeated: gives rows by their numbers, drawn alike in every epoch, instead of `draw`.
          recall: the teacher's stored targets of them, to go with the batch.
        """
        if len(rows) == 0:
            raise ValueError("the training split has no rows: its text is empty.")
        count = len(rows)

        def make(step: int, chosen: Int[np.ndarray, " B"]) -> Batch:
            if repeated is None:
                batch = draw(rows[chosen], numpy_stream(seed, "masking", step))
            else:
                batch = repeated(chosen)
            if recall is None:
                return batch
            return dataclasses.replace(batch, stored_targets=recall(chosen, batch))

        # Grain moves step numbers; rows are fetched and drawn a batch at a time, which leaves the
        # cores to the training.
        if lengths is None:
            epoch = functools.lru_cache(2)(lambda number: permutation(seed, number, count))

            def chosen(step: int) -> Int[np.ndarray, " B"]:
                """Epochs follow each other; one may end within a batch."""
                at = step * batch_size + np.arange(batch_size)
                return np.array([epoch(int(i // count))[i % count] for i in at])
        else:
            buckets = functools.lru_cache(2)(
                lambda number: length_buckets(
                    lengths, batch_size, numpy_stream(seed, "order", number)
                )
            )
            batches = len(buckets(0))

            def chosen(step: int) -> Int[np.ndarray, " B"]:
                return buckets(step // batches)[step % batches]

        import grain  # half a second, which --show need not wait for

        self._batches = (
            grain.MapDataset.range(1)
            .repeat()
            .map_with_index(lambda step, _: make(step, chosen(step)))
        )

    def __getitem__(self, step: int) -> Batch:
        return self._batches[step]

    def start(self, step: int, *, ahead: int = 16) -> Any:
        """A grain.DatasetIterator that gives batch `step` first."""
        import grain

        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=ahead)
        iterator = iter(self._batches.to_iter_dataset(options))
        iterator.set_state({"next_index": step})
        return iterator


def length_buckets(
    lengths: Int[np.ndarray, " rows"], batch_size: int, rng: np.random.Generator, pool: int = 64
) -> Int[np.ndarray, "batches {batch_size}"]:
    """An epoch's batches of row numbers: rows are shuffled, those of every `pool` batches sorted
    by length and cut, and the batches shuffled again. A rest smaller than a batch waits for the
    next epoch; fewer rows than a batch are repeated.

    >>> batches = length_buckets(np.array([5, 1, 5, 1, 5, 1]), 3, np.random.default_rng(0))
    >>> sorted(sorted(batch.tolist()) for batch in batches)
    [[0, 2, 4], [1, 3, 5]]
    """
    shuffled = rng.permutation(len(lengths))
    if len(shuffled) < batch_size:
        shuffled = np.resize(shuffled, batch_size)
    shuffled = shuffled[: len(shuffled) // batch_size * batch_size]
    batches = []
    for start in range(0, len(shuffled), pool * batch_size):
        part = shuffled[start : start + pool * batch_size]
        batches.append(part[np.argsort(lengths[part], kind="stable")].reshape(-1, batch_size))
    return rng.permutation(np.concatenate(batches))


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One pass over some rows, drawn the same for every model and every run (of one batch size)."""

    rows: RowArray
    order: Int[np.ndarray, " n"]  # numbers of the rows, as they come
    draw: MakeBatch
    filler: int  # token that fills up the last batch
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.order), self.batch_size):
            rows = self.rows[self.order[start : start + self.batch_size]]
            # All batches have one shape, so that one compilation serves; a row of padding has no
            # targets, and is not counted.
            missing = self.batch_size - len(rows)
            rows = np.pad(rows, [(0, missing), (0, 0)], constant_values=self.filler)
            rng = numpy_stream(0, "masking for evaluation", start // self.batch_size)
            yield self.draw(rows, rng)
