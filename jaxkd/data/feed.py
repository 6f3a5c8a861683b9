"""Rows -> batches: an endless shuffled stream for training, one ordered pass for evaluation."""

import dataclasses
from collections.abc import Iterator

import grain
import jax
import numpy as np
from jaxtyping import Int

from jaxkd.core.batch import Batch
from jaxkd.core.random import numpy_stream
from jaxkd.data.masking import Masking, Vocabulary, mask_row

Rows = Int[np.ndarray, "rows L"]


def _stack(rows: list[Batch]) -> Batch:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


class Training:
    """Batches of step 0, 1, 2, ...; batch k of a seed is the same whenever it is asked for.

    Each epoch is shuffled anew; row i of the stream is masked with randomness derived from
    (seed, i) alone, so a row is hidden differently each time it comes round. Grain reads ahead on
    its own threads, and the host never makes the device wait.
    """

    def __init__(
        self, rows: Rows, masking: Masking, vocabulary: Vocabulary, *, seed: int, batch_size: int
    ):
        if len(rows) == 0:
            raise ValueError("the training split has no rows: its text is empty.")

        def mask(index: int, row: Int[np.ndarray, " L"]) -> Batch:
            return mask_row(row, masking, vocabulary, numpy_stream(seed, "masking", index))

        self._batches = (
            grain.MapDataset.source(rows)
            .shuffle(seed=seed)
            .repeat()
            .map_with_index(mask)
            .batch(batch_size, batch_fn=_stack)
        )

    def __getitem__(self, step: int) -> Batch:
        return self._batches[step]

    def start(self, step: int, *, ahead: int = 16) -> grain.DatasetIterator:
        """An iterator that gives batch `step` first; `get_state()` says where it stands."""
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=ahead)
        iterator = iter(self._batches.to_iter_dataset(options))
        iterator.set_state({"next_index": step})
        return iterator


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One pass over all rows, masked the same for every model and every run."""

    rows: Rows
    masking: Masking
    vocabulary: Vocabulary
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.rows), self.batch_size):
            batch = _stack(
                [
                    mask_row(
                        self.rows[i],
                        self.masking,
                        self.vocabulary,
                        numpy_stream(0, "masking for evaluation", i),
                    )
                    for i in range(start, min(start + self.batch_size, len(self.rows)))
                ]
            )
            missing = self.batch_size - batch.rows
            # All batches have one shape, so that one compilation serves; what fills is not counted.
            yield jax.tree.map(
                lambda x: np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)),  # noqa: B023
                batch,
            )
