"""Kinds of weights in an exported file: what is stored of a matrix, and how it is multiplied."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from jaxkd.core.names import did_you_mean
from jaxkd.export.emit.graph import Graph
from jaxkd.export.processor import int8_bits

Layer = Mapping[str, Any]  # parameters, numpy arrays by name


@runtime_checkable
class Weights(Protocol):
    """How matrices are stored and multiplied; everything else stays float32."""

    name: ClassVar[str]

    def dense(
        self, graph: Graph, names: tuple[str, ...], hidden: str, layers: tuple[Layer, ...]
    ) -> list[str]:
        """hidden @ kernel + bias for each layer of these names: kernel [in, out], bias or none.

        hidden is [..., in]; in a streamed graph [rows, in].
        """

    def rows(self, graph: Graph, name: str, table: np.ndarray, ids: str) -> str:
        """Rows of an embedding [V, E] by their ids: [..., E]."""

    def whole(self, graph: Graph, name: str, array: np.ndarray, axis: int) -> str:
        """An array in float32, for operators that take no bytes; products sum over `axis`."""

    def tied(self, graph: Graph, name: str, table: np.ndarray, hidden: str) -> str:
        """hidden @ table.T for the embedding that `rows` stored under this name."""


@dataclasses.dataclass(frozen=True)
class Float32:
    """As they are."""

    name: ClassVar[str] = "float32"

    def dense(
        self, graph: Graph, names: tuple[str, ...], hidden: str, layers: tuple[Layer, ...]
    ) -> list[str]:
        if not graph.streamed:
            # A MatMul each and not one for all: onnxruntime makes one of them, with the attention.
            products = [
                graph.add("MatMul", hidden, self.whole(graph, f"{name}/kernel", layer["kernel"], 0))
                for name, layer in zip(names, layers, strict=True)
            ]
            return with_biases(graph, names, products, layers)
        # As [out, in]: the fastest that onnxruntime has for a matrix it sees for the first time.
        stacked = np.ascontiguousarray(stack(layers, "kernel").T)
        matrix = self.whole(graph, f"{joined(names)}/kernel", stacked, 1)
        if not all("bias" in layer for layer in layers):
            products = split(graph, gemm(graph, hidden, matrix), layers)
            return with_biases(graph, names, products, layers)
        bias = graph.weight(f"{joined(names)}/bias", stack(layers, "bias"))
        return split(graph, gemm(graph, hidden, matrix, bias), layers)

    def rows(self, graph: Graph, name: str, table: np.ndarray, ids: str) -> str:
        return graph.add("Gather", graph.weight(name, table), ids)

    def whole(self, graph: Graph, name: str, array: np.ndarray, axis: int) -> str:
        return graph.weight(name, array)

    def tied(self, graph: Graph, name: str, table: np.ndarray, hidden: str) -> str:
        matrix = self.whole(graph, name, table, 1)
        # Not Gemm(transB=1): quantize_dynamic would transpose the matrix in place, and the
        # embedding's Gather would read the transpose.
        return graph.add("MatMul", hidden, graph.once("Transpose", matrix, perm=[1, 0]))


@dataclasses.dataclass(frozen=True)
class Float16(Float32):
    """Matrices in half the bytes; made float32 when they are multiplied."""

    name: ClassVar[str] = "float16"

    def rows(self, graph: Graph, name: str, table: np.ndarray, ids: str) -> str:
        chosen = graph.add("Gather", graph.weight(name, half(table, name)), ids)
        return graph.add("Cast", chosen, to=_FLOAT)

    def whole(self, graph: Graph, name: str, array: np.ndarray, axis: int) -> str:
        return graph.once("Cast", graph.weight(name, half(array, name)), to=_FLOAT)


def half(array: np.ndarray, name: str) -> np.ndarray:
    """float16 numbers; raises ValueError where one is too large for them."""
    largest = float(np.abs(array).max(initial=0.0))
    if not largest <= float(np.finfo(np.float16).max):
        raise ValueError(
            f"weight {name!r} has a number of magnitude {largest:g}; float16 ends at 65504. "
            "Export float32 or int8."
        )
    return np.ascontiguousarray(array, np.float16)


@dataclasses.dataclass(frozen=True)
class Int8:
    """Signed bytes, a scale for each output; activations are made bytes as they come.

    Products are sums of bytes in int32, exact. Activations get one scale and zero point a tensor
    (`DynamicQuantizeLinear`), so that rows of a batch share them.

    Args:
      bits: of the weights; 7 where a processor adds products of bytes in 16 bits (x86 without
        VNNI), which 8 bits overflow.
    """

    bits: int = 8
    name: ClassVar[str] = "int8"

    def dense(
        self, graph: Graph, names: tuple[str, ...], hidden: str, layers: tuple[Layer, ...]
    ) -> list[str]:
        stored, scale = quantise(stack(layers, "kernel"), axis=0, bits=self.bits)
        name = f"{joined(names)}/kernel"
        matrix, factors = graph.weight(name, stored), graph.weight(f"{name}_scale", scale)
        product = self.scaled(graph, hidden, matrix, factors)
        if not all("bias" in layer for layer in layers):
            return with_biases(graph, names, split(graph, product, layers), layers)
        # Added before they are parted, where onnxruntime has an operator for all of it.
        bias = graph.weight(f"{joined(names)}/bias", stack(layers, "bias"))
        return split(graph, graph.add("Add", product, bias), layers)

    def scaled(self, graph: Graph, hidden: str, matrix: str, factors: str) -> str:
        quantised, own_scale, zero = graph.once("DynamicQuantizeLinear", hidden, outputs=3)
        summed = graph.add("MatMulInteger", quantised, matrix, zero)
        both = graph.add("Mul", own_scale, factors)
        return graph.add("Mul", graph.add("Cast", summed, to=_FLOAT), both)

    def rows(self, graph: Graph, name: str, table: np.ndarray, ids: str) -> str:
        stored, scale = quantise(table, axis=1, bits=self.bits)
        chosen = graph.add("Gather", graph.weight(name, stored), ids)
        factors = graph.add("Gather", graph.weight(f"{name}_scale", scale[:, None]), ids)
        return graph.add("Mul", graph.add("Cast", chosen, to=_FLOAT), factors)

    def whole(self, graph: Graph, name: str, array: np.ndarray, axis: int) -> str:
        stored, scale = quantise(array, axis=axis, bits=self.bits)
        factors = graph.weight(f"{name}_scale", np.expand_dims(scale, axis))
        return graph.add("Mul", graph.add("Cast", graph.weight(name, stored), to=_FLOAT), factors)

    def tied(self, graph: Graph, name: str, table: np.ndarray, hidden: str) -> str:
        stored, scale = quantise(table, axis=1, bits=self.bits)
        matrix = graph.once("Transpose", graph.weight(name, stored), perm=[1, 0])
        factors = graph.once(
            "Reshape", graph.weight(f"{name}_scale", scale[:, None]), np.array([-1], np.int64)
        )
        return self.scaled(graph, hidden, matrix, factors)


_FLOAT = 1  # onnx.TensorProto.FLOAT
NO_BIAS = np.zeros(1, np.float32)


def quantise(array: np.ndarray, *, axis: int, bits: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """int8 values and float32 scales, with array ~ values * scale; `axis` is summed over.

    Symmetric: the largest magnitude of each row or column is 2^(bits - 1) - 1 and 0 stays 0.

    >>> values, scale = quantise(np.array([[1.0, -254.0], [-127.0, 2.0]]), axis=0)
    >>> values.tolist(), scale.tolist()
    ([[1, -127], [-127, 1]], [1.0, 2.0])
    """
    largest = 2 ** (bits - 1) - 1
    magnitude = np.abs(array).max(axis)
    scale = np.where(magnitude > 0, magnitude / largest, 1.0).astype(np.float32)
    values = np.round(array / np.expand_dims(scale, axis))
    return np.clip(values, -largest, largest).astype(np.int8), scale


def gemm(graph: Graph, hidden: str, matrix: str, bias: str | np.ndarray = NO_BIAS) -> str:
    """hidden [rows, in] @ matrix.T [in, out] + bias.

    Something is always added: onnxruntime 1.10 refuses a graph in which an activation follows a
    Gemm of two inputs.
    """
    return graph.add("Gemm", hidden, matrix, bias, transB=1)


def with_biases(
    graph: Graph, names: tuple[str, ...], products: list[str], layers: tuple[Layer, ...]
) -> list[str]:
    """The products of layers of these names, with the bias of those that have one."""
    return [
        graph.add("Add", product, graph.weight(f"{name}/bias", layer["bias"]))
        if "bias" in layer else product
        for name, product, layer in zip(names, products, layers, strict=True)
    ]  # fmt: skip


def stack(layers: tuple[Layer, ...], name: str) -> np.ndarray:
    """Kernels [in, sum of out] or biases [sum of out] of layers, side by side."""
    return np.concatenate([layer[name] for layer in layers], axis=-1)


def joined(names: tuple[str, ...]) -> str:
    """One name for layers side by side: attention/query+key+value."""
    if len(names) == 1:
        return names[0]
    parts = [name.split("/") for name in names]
    return "/".join("+".join(dict.fromkeys(each)) for each in zip(*parts, strict=True))


def split(graph: Graph, product: str, layers: tuple[Layer, ...]) -> list[str]:
    """Products of matrices side by side, apart again."""
    if len(layers) == 1:
        return [product]
    sizes = np.array([layer["kernel"].shape[1] for layer in layers], np.int64)
    return list(graph.add("Split", product, sizes, outputs=len(layers), axis=-1))


KINDS: dict[str, Any] = {kind.name: kind for kind in (Float32, Float16, Int8)}
FLOAT32 = Float32()


def weights_of(name: str, bits: int = 0) -> Weights:
    """A kind of weights by its name.

    Args:
      bits: of int8; 0: what is exact on this machine's processor.
    Raises:
      ValueError: for an unknown kind or another number of bits.
    """
    if name not in KINDS:
        raise ValueError(f"weights={name!r}. {did_you_mean(name, KINDS)}")
    if bits not in (0, 7, 8):
        raise ValueError(f"bits is {bits}; it is 7, 8, or 0: what this processor needs.")
    return Int8(bits or int8_bits()) if name == "int8" else KINDS[name]()
