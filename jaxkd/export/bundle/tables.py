"""Tables as large as the vocabulary: the runner gathers their rows and multiplies with slices.

A table is never part of a graph. Its rows are read where the file is mapped, and logits are made a
slice of the vocabulary at a time, so that no more than a slice is ever in memory.
"""

from typing import Any

import numpy as np

from jaxkd.export.bundle.files import Files
from jaxkd.export.emit.graph import Graph
from jaxkd.export.emit.kinds import Float16, Int8, Weights, gemm, half, quantise
from jaxkd.export.emit.layers import Emitter

SLICE = 4096  # tokens of the vocabulary that are multiplied at a time


def write_rows(files: Files, name: str, table: np.ndarray, weights: Weights) -> dict[str, Any]:
    """A table [V, E] of which rows are read: `values` [V, E], of int8 with `scale` [V]."""
    return files.tensors(name, stored_rows(table, weights, name)) | {"layout": "rows"}


def stored_rows(table: np.ndarray, weights: Weights, name: str) -> dict[str, np.ndarray]:
    if isinstance(weights, Int8):
        values, scale = quantise(table, axis=1, bits=weights.bits)
        return {"values": values, "scale": scale}
    if isinstance(weights, Float16):
        return {"values": half(table, name)}
    return {"values": np.asarray(table, np.float32)}


def write_vocabulary(
    files: Files, name: str, table: np.ndarray, weights: Weights
) -> dict[str, Any]:
    """A table [V, E] that hidden states are multiplied with; rows can be read as well.

    In int8 a slice is stored as [E, slice], as `MatMulInteger` takes it.
    """
    stored = stored_rows(table, weights, name)
    if not isinstance(weights, Int8):
        return files.tensors(name, stored) | {"layout": "rows", "slice": SLICE}
    arrays = {
        f"values.{start // SLICE}": np.ascontiguousarray(stored["values"][start : start + SLICE].T)
        for start in range(0, len(table), SLICE)
    }
    arrays["scale"] = stored["scale"]
    return files.tensors(name, arrays) | {"layout": "columns", "slice": SLICE}


def product(width: int, weights: Weights) -> Graph:
    """`states` [rows, E] by a slice of the vocabulary -> `logits` [rows, slice]."""
    graph = Graph()
    e = Emitter(graph, weights)
    states = graph.input("states", np.float32, ("rows", width))
    if isinstance(weights, Int8):
        values = graph.input("values", np.int8, (width, "slice"))
        scale = graph.input("scale", np.float32, ("slice",))
        logits = weights.scaled(graph, states, values, scale)
    else:
        dtype = np.float16 if isinstance(weights, Float16) else np.float32
        values = graph.input("values", dtype, ("slice", width))
        if isinstance(weights, Float16):
            values = e.graph.add("Cast", values, to=1)
        logits = gemm(graph, states, values)
    graph.output("logits", logits, np.float32, ("rows_out", "slice_out"))
    return graph
