"""The batches a search trains on, with the teacher's hidden states, which are computed once."""

import dataclasses
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np

from jaxkd.core.batch import Batch
from jaxkd.core.stored_targets import Hidden
from jaxkd.data.rows.base import Rows
from jaxkd.data.rows.masking import Masking
from jaxkd.distil import objective
from jaxkd.distil.layer_map import pairs
from jaxkd.models import families
from jaxkd.models.model import Params, states

WHOLE = "whole.json"  # written last


def layers_of(terms: objective.Terms, depths: Iterable[int], teacher: int) -> list[int]:
    """The teacher's layers that terms look at, for students of any of these depths."""
    return sorted(
        {
            layer
            for term in terms.values()
            for depth in depths
            for _, layers in pairs(term.layer_map, depth, teacher)
            for layer in layers
        }
    )


def share_of(rows: Rows, share: float) -> Rows:
    """The rows with that share of the training split, evenly spaced over it."""
    train = rows.splits["train"]
    count = max(1, math.ceil(share * len(train)))
    chosen = np.arange(count) * len(train) // count
    return dataclasses.replace(rows, splits={**rows.splits, "train": train[chosen]})


class TeacherStates:
    """Batches of one epoch and of the validation split, with what the teacher makes of them.

    Args:
      folder: where the states are kept; they are computed again unless `made_from` is the same.
      layers: numbers of the teacher's hidden states, 0 the embedding's.
      validation_rows: 0: all.
      most_megabytes: of the files.
    Raises:
      ValueError: if the states would be larger.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        made_from: Any,
        config: families.Config,
        params: Params,
        rows: Rows,
        *,
        layers: Sequence[int],
        seed: int,
        batch_size: int,
        validation_rows: int,
        most_megabytes: float,
        stopping: Callable[[], bool] = lambda: False,
    ):
        rows = rows.for_model(config)
        feed = rows.training(seed=seed, batch_size=batch_size, masking=Masking())
        count = max(1, len(rows.splits["train"]) // batch_size)
        self._plain = {
            "train": [feed[i] for i in range(count)],
            "validation": list(rows.batches("validation", batch_size, validation_rows)),
        }
        self._layers, self._folder = tuple(layers), folder
        self.depth, self._dtype = config.layers, np.dtype(config.dtype)
        tokens = sum(batch.tokens.size for each in self._plain.values() for batch in each)
        self.megabytes = tokens * len(layers) * config.width * self._dtype.itemsize / 1e6
        if self.megabytes > most_megabytes:
            raise ValueError(
                f"the teacher's hidden states of {tokens:,} tokens would take "
                f"{self.megabytes:,.0f} MB, allowed are {most_megabytes:,.0f}: lower `share`, use "
                "a layer map of fewer layers (top), or raise `store_megabytes`."
            )
        made_from = json.loads(json.dumps([made_from, self._layers, seed, batch_size]))
        if not self._is_whole(made_from):
            self._compute(made_from, config, params, stopping)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return len(self._plain["train"])

    def batch(self, split: str, number: int) -> Batch:
        """A batch, its `stored_targets` the teacher's states."""
        stored = np.load(self._file(split, number), mmap_mode="r").view(self._dtype)
        states: list[Any] = [None] * (self.depth + 1)
        for layer, array in zip(self._layers, stored, strict=True):
            states[layer] = np.asarray(array)
        return dataclasses.replace(self._plain[split][number], stored_targets=Hidden(tuple(states)))

    def validation(self) -> list[Batch]:
        return [self.batch("validation", i) for i in range(len(self._plain["validation"]))]

    def variance(self, layer: int) -> float:
        """The mean over channels of the variance over the validation split's positions.

        It is the squared distance of the layer's states from the best constant answer.
        """
        at, total, squares, count = self._layers.index(layer), 0.0, 0.0, 0
        for number, batch in enumerate(self._plain["validation"]):
            stored = np.load(self._file("validation", number)).view(self._dtype)[at]
            states = stored[np.asarray(batch.mask)].astype(np.float64)
            total, squares = total + states.sum(0), squares + (states**2).sum(0)
            count += len(states)
        return float(np.mean(squares / count - (total / count) ** 2))

    def without_states(self, count: int) -> list[Batch]:
        """The first batches of the epoch, to measure what matters in the teacher."""
        return self._plain["train"][:count]

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, split: str, number: int) -> pathlib.Path:
        return self._folder / f"{split}_{number:06}.npy"

    def _is_whole(self, made_from: Any) -> bool:
        try:
            return json.loads((self._folder / WHOLE).read_text()) == made_from
        except (OSError, ValueError):
            return False

    def _compute(
        self, made_from: Any, config: families.Config, params: Params, stopping: Callable[[], bool]
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        model = families.build(config)
        params = jax.device_put(model.arrange(params))

        @jax.jit
        def chosen(params: Params, batch: Batch) -> tuple[Any, ...]:
            hidden = states(model, params, batch).hidden
            return tuple(hidden[layer].astype(config.dtype) for layer in self._layers)

        # Files have no bfloat16: its bits are stored.
        bits = np.uint16 if self._dtype == ml_dtypes.bfloat16 else self._dtype
        for split, batches in self._plain.items():
            for number, batch in enumerate(batches):
                if stopping():
                    raise KeyboardInterrupt("stopped while the teacher ran; start again to go on")
                arrays = np.stack(jax.device_get(chosen(params, batch)))
                np.save(self._file(split, number), arrays.view(bits))
        (self._folder / WHOLE).write_text(json.dumps(made_from))
