"""A graph in float16, with islands of float32: norms, softmax and sums, by their kind.

A file that carries its types, as TensorRT 11 wants it, which has no flag for float16 any longer.
The variance of a norm overflows float16, and its epsilon is below its smallest number.
"""

import dataclasses

import numpy as np

from jaxkd.export.emit.graph import Graph, Node
from jaxkd.export.emit.kinds import half

FLOAT, FLOAT16 = 1, 10  # of onnx.TensorProto
# Run in float16. Everything else with floats is an island.
HALF = frozenset(
    "Add Clip Concat Div Erf Expand Gather GatherElements Gemm Identity MatMul Mul Relu Reshape "
    "Sigmoid Slice Softplus Split Squeeze Tanh Transpose Unsqueeze".split()
)
# In these an operation stays float32 where all its numbers are: the end of a norm, a bias.
FOLLOW = frozenset(
    "Add Concat Div Expand Gather Identity Mul Reshape Slice Squeeze Transpose Unsqueeze".split()
)
INTEGERS = frozenset("ArgMax Shape Range Less".split())  # outputs are no floats


def to_float16(graph: Graph) -> Graph:
    """The same graph, products and elementwise operations in float16; its outputs are float32."""
    made = Graph()
    made.inputs, made.outputs = dict(graph.inputs), dict(graph.outputs)
    arrays = graph.weights | graph.constants()
    floats = {name for name, array in arrays.items() if array.dtype == np.float32}
    floats |= {name for name, (kind, _) in graph.inputs.items() if kind == np.float32}
    constants = set(arrays)
    low: set[str] = set()  # values in float16
    cast: dict[tuple[str, bool], str] = {}

    def as_type(value: str, lower: bool) -> str:
        """The value in float16 or float32."""
        if value not in floats or (value in low) == lower:
            return value
        key = (value, lower)
        if key not in cast:
            if value in constants and lower:
                cast[key] = f"{value}/float16"
                made.weights[cast[key]] = half(arrays[value], value)
            else:
                cast[key] = f"{value}/{'float16' if lower else 'float32'}"
                to = FLOAT16 if lower else FLOAT
                made.nodes.append(Node("Cast", (value,), (cast[key],), {"to": to}))
        return cast[key]

    for node in graph.nodes:
        read = [value for value in node.inputs if value in floats]
        moving = [value for value in read if value not in constants]
        lower = node.kind in HALF and bool(read)
        if lower and node.kind in FOLLOW and moving and not any(v in low for v in moving):
            divides = node.kind == "Div" and node.inputs[1] in constants
            lower = node.kind == "Div" and divides
        if any(name in graph.outputs for name in node.outputs):
            lower = False
        is_float = _makes_floats(node, floats)
        inputs = tuple(as_type(value, lower) for value in node.inputs)
        made.nodes.append(dataclasses.replace(node, inputs=inputs))
        if is_float:
            floats |= set(node.outputs)
            low |= set(node.outputs) if lower else set()
    used = {value for node in made.nodes for value in node.inputs}
    for name, array in arrays.items():
        if name in used:
            made.weights[name] = array
    return made


def _makes_floats(node: Node, floats: set[str]) -> bool:
    if node.kind == "Cast":
        return node.attributes["to"] == FLOAT
    if node.kind in INTEGERS:
        return False
    return node.inputs[0] in floats or (node.kind == "OneHot")
