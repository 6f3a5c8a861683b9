"""int8 with activations of fixed scales, which were seen on data: explicit Q/DQ nodes.

TensorRT from 10 on takes int8 in no other form. Zero points are 0 and matrices have a scale for
each output, as it wants; norms, softmax and everything but the products stay float32.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np

from jaxkd.export.emit.graph import Graph
from jaxkd.export.emit.kinds import Float16, Float32, Layer, quantise, with_biases

RANGE = "range."  # outputs of a model whose ranges are observed, each [rows, ...]
PERCENTILE = 99.9  # of the largest magnitude of each token: what is above is cut off


@dataclasses.dataclass(frozen=True)
class Observed(Float32):
    """float32; what goes into each product is also seen: the largest magnitude of each token."""

    name: ClassVar[str] = "observed"

    def dense(
        self, graph: Graph, names: tuple[str, ...], hidden: str, layers: tuple[Layer, ...]
    ) -> list[str]:
        self._see(graph, hidden)
        return super().dense(graph, names, hidden, layers)

    def tied(self, graph: Graph, name: str, table: np.ndarray, hidden: str) -> str:
        self._see(graph, hidden)
        return super().tied(graph, name, table, hidden)

    def _see(self, graph: Graph, hidden: str) -> None:
        number = sum(name.startswith(RANGE) for name in graph.outputs)
        largest = graph.add("ReduceMax", graph.add("Abs", hidden), axes=[-1], keepdims=0)
        shape = (f"range_{number}_rows", f"range_{number}_columns")
        # The rank is the hidden states': of a pooled one only rows. Free names do not bind it.
        graph.output(f"{RANGE}{number}", graph.add("Reshape", largest, _LEAD), np.float32, shape)


_LEAD = np.array([0, -1], np.int64)


@dataclasses.dataclass(frozen=True)
class StaticInt8(Float32):
    """Products of bytes, with a fixed scale for what goes into each, in the order of the graph."""

    scales: tuple[float, ...]
    bits: int = 8
    name: ClassVar[str] = "int8_static"

    def dense(
        self, graph: Graph, names: tuple[str, ...], hidden: str, layers: tuple[Layer, ...]
    ) -> list[str]:
        bytes_ = self._bytes(graph, hidden)
        products = [
            graph.add("MatMul", bytes_, self._matrix(graph, f"{name}/kernel", layer["kernel"], 1))
            for name, layer in zip(names, layers, strict=True)
        ]
        return with_biases(graph, names, products, layers)

    def rows(self, graph: Graph, name: str, table: np.ndarray, ids: str) -> str:
        return Float16().rows(graph, name, table, ids)

    def tied(self, graph: Graph, name: str, table: np.ndarray, hidden: str) -> str:
        bytes_ = self._bytes(graph, hidden)
        return graph.add("MatMul", bytes_, self._matrix(graph, f"{name}/output", table.T, 1))

    def _bytes(self, graph: Graph, hidden: str) -> str:
        """The hidden states rounded to bytes, as numbers again."""
        number = sum(node.kind == "QuantizeLinear" for node in graph.nodes)
        if number >= len(self.scales):
            raise ValueError(
                f"there are {len(self.scales)} scales and more products: calibrate this model."
            )
        scale, zero = np.float32(self.scales[number]), np.int8(0)
        quantised = graph.add("QuantizeLinear", hidden, np.array(scale), np.array(zero))
        return graph.add("DequantizeLinear", quantised, np.array(scale), np.array(zero))

    def _matrix(self, graph: Graph, name: str, kernel: np.ndarray, axis: int) -> str:
        stored, scale = quantise(np.ascontiguousarray(kernel), axis=1 - axis, bits=self.bits)
        zeros = np.zeros(scale.shape, np.int8)
        return graph.once(
            "DequantizeLinear", graph.weight(name, stored), graph.weight(f"{name}_scale", scale),
            zeros, axis=axis,
        )  # fmt: skip


def scales_of(
    run: Callable[[Any], dict[str, np.ndarray]], batches: Iterable[Any], bits: int = 8
) -> tuple[float, ...]:
    """The scales of a model with `Observed` weights.

    Args:
      run: outputs of the model's file by name, for a batch; the batch has the mask [B, L].
    Raises:
      ValueError: if there are no batches.
    """
    seen: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        mask = np.asarray(batch.mask, bool)
        for name, largest in run(batch).items():
            if name.startswith(RANGE):
                tokens = largest[mask] if largest.shape == mask.shape else largest.reshape(-1)
                seen.setdefault(name, []).append(tokens)
    if not seen:
        raise ValueError("there are no rows to calibrate int8 with.")
    most = 2 ** (bits - 1) - 1
    ordered = sorted(seen, key=lambda name: int(name.removeprefix(RANGE)))
    tops = [float(np.percentile(np.concatenate(seen[name]), PERCENTILE)) for name in ordered]
    return tuple(max(top, 1e-6) / most for top in tops)
