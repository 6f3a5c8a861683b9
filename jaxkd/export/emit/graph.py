"""An ONNX graph under construction, of operators that opset 13 has; values are their names."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd.export.extra import extra

IR = 7  # onnxruntime up to 1.8 reads no later one; the onnx package's default is too new for all
OPSET = 13  # the first with Softmax along one axis; TensorRT 8.0 reads no later one

Shape = Sequence[int | str]  # names are free dimensions


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation; the names of its values."""

    kind: str
    inputs: tuple[str, ...]  # "": an optional input that is left out
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


class Graph:
    """Nodes in the order they were added, inputs, outputs and weights by name.

    A weight is a constant of the file; in a `streamed` graph it is an input, so that one small
    graph runs with the weights of many blocks.
    """

    def __init__(self, *, streamed: bool = False) -> None:
        self.streamed = streamed
        self.nodes: list[Node] = []
        self.inputs: dict[str, tuple[Any, Shape]] = {}
        self.outputs: dict[str, tuple[Any, Shape]] = {}
        self.weights: dict[str, np.ndarray] = {}  # in the order they were first used
        self._constants: dict[Any, str] = {}
        self._made: dict[Any, str] = {}  # values that `once` has
        self._names: set[str] = set()
        self._scope = ""

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names of what is added within begin with `name`."""
        before, self._scope = self._scope, f"{self._scope}{name}/"
        try:
            yield
        finally:
            self._scope = before

    def input(self, name: str, dtype: Any, shape: Shape) -> str:
        """Declare an input of the graph; returns its value."""
        self.inputs[name] = (np.dtype(dtype), tuple(shape))
        return name

    def output(self, name: str, value: str, dtype: Any, shape: Shape) -> None:
        """Declare an output: a value under a name of its own."""
        self.nodes.append(Node("Identity", (value,), (name,), {}))
        self.outputs[name] = (np.dtype(dtype), tuple(shape))

    def add(self, kind: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; returns its value, or a tuple of them.

        Args:
          inputs: values; an array is made a constant, None is an optional input left out.
        """
        values = tuple(
            "" if each is None else each if isinstance(each, str) else self.constant(each)
            for each in inputs
        )
        names = tuple(self._unused(f"{self._scope}{kind}") for _ in range(outputs))
        self.nodes.append(Node(kind, values, names, attributes))
        return names[0] if outputs == 1 else names

    def once(self, kind: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """As `add`; the same operation on the same values is added only once."""
        key = (
            kind,
            tuple(each if isinstance(each, str | None) else self.constant(each) for each in inputs),
            repr(sorted(attributes.items())),
        )
        if key not in self._made:
            self._made[key] = self.add(kind, *key[1], outputs=outputs, **attributes)
        return self._made[key]

    def constant(self, array: Any) -> str:
        """A small array, once in the file however often it is used."""
        array = np.asarray(array, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
        return self._constants[key]

    def constants(self) -> dict[str, np.ndarray]:
        """The small arrays by name."""
        return {
            name: np.frombuffer(content, kind).reshape(shape)
            for (kind, shape, content), name in self._constants.items()
        }

    def weight(self, name: str, array: np.ndarray) -> str:
        """A parameter under its name; the same name again is the same weight."""
        name = f"{self._scope}{name}"
        known = self.weights.setdefault(name, array)
        if known.shape != array.shape or known.dtype != array.dtype:
            raise ValueError(f"weight {name!r} is {known.shape} already, not {array.shape}.")
        return name

    def model(self) -> Any:
        """The onnx.ModelProto; Identity nodes of outputs are renamed away where that is possible.

        Raises:
          ModuleNotFoundError: without the extra `export`.
        """
        onnx = extra("onnx")
        helper, to_proto = onnx.helper, onnx.numpy_helper.from_array
        dtype = helper.np_dtype_to_tensor_dtype

        def declared(values: Mapping[str, tuple[Any, Shape]]) -> list[Any]:
            return [
                helper.make_tensor_value_info(name, dtype(kind), shape)
                for name, (kind, shape) in values.items()
            ]

        inputs, arrays = dict(self.inputs), {}
        for name, array in self.weights.items():
            if self.streamed:
                inputs[name] = (array.dtype, array.shape)
            else:
                arrays[name] = array
        arrays |= self.constants()
        graph = helper.make_graph(
            [
                helper.make_node(n.kind, n.inputs, n.outputs, n.outputs[0], **n.attributes)
                for n in self._named_outputs()
            ],
            "jaxkd",
            declared(inputs),
            declared(self.outputs),
            [to_proto(np.asarray(array, order="C"), name) for name, array in arrays.items()],
        )
        return helper.make_model(
            graph,
            producer_name="jaxkd",
            ir_version=IR,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )

    def _named_outputs(self) -> list[Node]:
        """The nodes, each output produced under its own name where one node produces it."""
        made = {name for node in self.nodes for name in node.outputs}
        renamed: dict[str, str] = {}
        kept = []
        for node in self.nodes:
            value = node.inputs[0] if node.inputs else ""
            if (
                node.kind == "Identity" and node.outputs[0] in self.outputs and value in made
                and value not in self.outputs and value not in renamed
            ):  # fmt: skip
                renamed[value] = node.outputs[0]
            else:
                kept.append(node)

        def names(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(renamed.get(value, value) for value in values)

        return [Node(n.kind, names(n.inputs), names(n.outputs), n.attributes) for n in kept]

    def _unused(self, name: str) -> str:
        number, made = 0, name
        while made in self._names:
            number += 1
            made = f"{name}_{number}"
        self._names.add(made)
        return made
