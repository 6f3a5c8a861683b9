"""An ONNX model of anybody's as nodes, their weights, and what each reads."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd.device import folder as device
from jaxkd.export.extra import extra

SMALL = 1024  # bytes below which a constant stays in its graph: shapes, axes, scalars
FREE = 4  # the first IR in which initializers are no inputs


@dataclasses.dataclass(frozen=True)
class Model:
    """An ONNX model whose nodes are to be divided."""

    proto: Any
    folder: pathlib.Path  # of external data
    initializers: Mapping[str, Any]
    types: dict[str, Any]  # onnx.ValueInfoProto of the values between nodes

    @property
    def nodes(self) -> Sequence[Any]:
        return self.proto.graph.node

    def array(self, name: str) -> np.ndarray:
        """An initializer, read when it is needed."""
        helper = extra("onnx").numpy_helper
        return helper.to_array(self.initializers[name], base_dir=str(self.folder))

    def nbytes(self, name: str) -> int:
        tensor = self.initializers[name]
        dtype = extra("onnx").helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return int(np.prod(tensor.dims, dtype=np.int64)) * dtype.itemsize

    def streams(self, name: str) -> bool:
        """Whether an initializer becomes an input; small ones, and types of no file, do not."""
        kind = extra("onnx").helper.tensor_dtype_to_np_dtype(self.initializers[name].data_type)
        return self.nbytes(name) >= SMALL and kind.name in device.DTYPES


def read(file: pathlib.Path) -> Model:
    """Opens a model; external data stays on disk.

    Raises:
      ValueError: if it is no ONNX model, or its nodes are not in an order in which they can run.
    """
    onnx = extra("onnx")
    try:
        proto = onnx.load(file, load_external_data=False)
        onnx.checker.check_model(str(file))
    except Exception as error:  # protobuf's and onnx's have no common class
        raise ValueError(f"{file} is no ONNX model that can be read: {error}") from error
    _take_constants_out(proto)
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    types = {
        value.name: value
        for values in (inferred.graph.input, inferred.graph.value_info, inferred.graph.output)
        for value in values
    }
    known = {tensor.name: tensor for tensor in proto.graph.initializer}
    return Model(proto, file.parent, known, types)


def _take_constants_out(proto: Any) -> None:
    """Constant nodes with a tensor become initializers: their weights are weights too."""
    kept = []
    for node in proto.graph.node:
        values = [each for each in node.attribute if each.name == "value"]
        if node.op_type == "Constant" and values:
            tensor = proto.graph.initializer.add()
            tensor.CopyFrom(values[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    proto.ir_version = max(proto.ir_version, FREE)


def reads_of(node: Any) -> list[str]:
    """Values that a node reads, those that its subgraphs take from around them included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            names += _outer(graph)
    return list(dict.fromkeys(names))


def _outer(graph: Any) -> Iterator[str]:
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        yield from (name for name in reads_of(node) if name not in own)
        own |= set(node.output)
    yield from (value.name for value in graph.output if value.name not in own)
