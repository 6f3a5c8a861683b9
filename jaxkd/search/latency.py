"""Milliseconds of a candidate: measured as it will run, or predicted by a table fitted to such.

A candidate and its teacher take turns, so that what else the machine does affects both alike.
"""

import dataclasses
import pathlib
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
import scipy.optimize

from jaxkd.core.batch import Batch
from jaxkd.core.ranges import field
from jaxkd.core.tree import filled
from jaxkd.export.bundle.format import Bundle, bench
from jaxkd.export.formats import Onnx
from jaxkd.models import families
from jaxkd.models.model import Params, forward

Timed = Callable[[], float]  # runs once; milliseconds


@dataclasses.dataclass
class Latency:
    """What is timed."""

    # jit: the compiled forward pass; onnx: the exported file under onnxruntime; bundle: what
    # run_device.py says of itself.
    of: str = field("jit", one_of=("jit", "onnx", "bundle"))
    weights: str = "float32"  # of the file or bundle; or int8
    # With this head in place of its own, as the student will be used; empty: its own. One over a
    # vocabulary may take more time than all blocks.
    head: str = ""
    batch: int = field(1, at_least=1)  # rows
    length: int = field(64, at_least=1)  # tokens of each row
    rounds: int = field(15, at_least=1)  # the median counts
    # Shapes that are measured to predict all others; 0: every candidate is measured.
    fitted_on: int = field(0, at_least=0)
    held_out: int = field(10, at_least=1)  # shapes by which the prediction is judged

    def check(self) -> None:
        if self.of == "bundle" and self.batch != 1:
            raise ValueError(f"batch is {self.batch}; a bundle's --bench runs a row at a time: 1.")
        if 0 < self.fitted_on < 6:
            raise ValueError(
                f"fitted_on is {self.fitted_on}: the table has up to eight numbers to fit; measure "
                "at least 6 shapes, better 16."
            )
        if self.of == "jit" and self.weights != "float32":
            raise ValueError(f"weights is {self.weights!r}: the compiled forward pass has float32.")
        if self.of != "jit":
            (Onnx if self.of == "onnx" else Bundle)(weights=self.weights).check()

    def timed(self, config: families.Config, params: Params) -> Timed:
        """A function that runs the model once and returns milliseconds; warm already."""
        if self.head and self.head != config.head:
            config = dataclasses.replace(config, head=self.head, exits=())
            params = {**params, "head": filled(families.build(config).shapes["head"])}
        how = {"jit": self._jit, "onnx": self._onnx, "bundle": self._bundle}[self.of]
        return how(config, params)

    def _batch(self, config: families.Config) -> Batch:
        shape = (self.batch, self.length)
        tokens = np.arange(self.batch * self.length, dtype=np.int32).reshape(shape)
        return Batch(tokens % config.vocabulary, np.ones(shape, bool))

    def _jit(self, config: families.Config, params: Params) -> Timed:
        model = families.build(config)
        arranged = jax.device_put(model.arrange(params))

        @jax.jit
        def run(params: Params, batch: Batch) -> Any:
            outputs = forward(model, params, batch)
            return outputs.hidden[-1] if outputs.logits is None else outputs.logits

        batch = jax.device_put(self._batch(config))
        return _clocked(lambda: jax.block_until_ready(run(arranged, batch)))

    def _onnx(self, config: families.Config, params: Params) -> Timed:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            Onnx(weights=self.weights).write(path, config, params)
            predict = Onnx(weights=self.weights).open(path, config)
            batch = self._batch(config)
            predict(batch)  # the session is made here, while its file is there
        return _clocked(lambda: predict(batch))

    def _bundle(self, config: families.Config, params: Params) -> Timed:
        folder = tempfile.mkdtemp()
        path = pathlib.Path(folder) / "bundle"
        Bundle(weights=self.weights).write(path, config, params)
        ids = self._batch(config).tokens.tolist()

        def run() -> float:
            return float(bench(path, ids)["milliseconds"]["p50"])

        weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
        return run


def _clocked(run: Callable[[], Any]) -> Timed:
    run()
    run()

    def timed() -> float:
        start = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - start)

    return timed


def in_turns(functions: Sequence[Timed], rounds: int) -> list[float]:
    """The median milliseconds of each, taking turns."""
    taken = [[each() for each in functions] for _ in range(rounds)]
    return np.median(np.array(taken), axis=0).tolist()


@dataclasses.dataclass(frozen=True)
class Table:
    """Milliseconds of shapes as a sum over their blocks, with weights that are not negative.

    More blocks, or a larger size, never take less time in it, so that it can be a `Limit`.
    """

    weights: tuple[float, ...]
    errors: tuple[float, ...] = ()  # relative, of the shapes that were held out

    def __call__(self, config: families.Config) -> float:
        return float(np.dot(self.weights, features(config)))

    @property
    def within(self) -> float:
        """Share of the held-out shapes whose prediction is at most 10% off."""
        return float(np.mean(np.abs(self.errors) <= 0.1)) if self.errors else float("nan")


def features(config: families.Config) -> np.ndarray:
    """What the time of a shape is a weighted sum of."""
    total = np.array([1.0, config.width, 0, 0, 0, 0, 0, 0])
    for i in range(config.layers):
        block = config.block(i)
        d, f, attention = block.width, block.feed_forward, block.heads * block.key_width
        total[2:] += [1.0, d, d * attention, d * f, f, block.heads]
    return total


def fitted(
    shapes: Sequence[families.Config],
    milliseconds: Iterable[float],
    held_out: Sequence[families.Config] = (),
    held_out_milliseconds: Iterable[float] = (),
) -> Table:
    """The table with the least squared relative error; judged on shapes that were held out."""
    times = np.array(list(milliseconds), float)
    matrix = np.stack([features(each) for each in shapes]) / times[:, None]
    scale = matrix.max(0) + 1e-30
    weights, _ = scipy.optimize.nnls(matrix / scale, np.ones(len(times)))
    table = Table(tuple((weights / scale).tolist()))
    errors = [
        table(each) / measured - 1
        for each, measured in zip(held_out, held_out_milliseconds, strict=True)
    ]
    return dataclasses.replace(table, errors=tuple(errors))
