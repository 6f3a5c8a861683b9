"""Layers that blocks and heads are made of, as ONNX operators."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from jaxkd.core.names import did_you_mean
from jaxkd.export.emit.graph import Graph
from jaxkd.export.emit.kinds import Layer, Weights

# Added to the scores of padding: exp(-1e4) is 0 in float32, and -1e4 is finite in float16 too.
PADDING_BIAS = -1e4


def number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@dataclasses.dataclass(frozen=True)
class Emitter:
    """What every emitter adds to: the graph, with one kind of weights."""

    graph: Graph
    weights: Weights

    def dense(self, name: str, params: Layer, hidden: str) -> str:
        """hidden @ kernel + bias of the layer params[name]."""
        return self.dense_layers((name,), params, hidden)[0]

    def dense_layers(self, names: tuple[str, ...], params: Layer, hidden: str) -> list[str]:
        """Several dense layers of the same input."""
        layers = tuple(layer_of(params, name) for name in names)
        return self.weights.dense(self.graph, names, hidden, layers)

    def layer_norm(self, name: str, params: Layer, hidden: str, epsilon: float) -> str:
        """(x - mean) / sqrt(variance + epsilon) * scale + bias, in the form onnxruntime fuses."""
        add = self.graph.add
        centred = add("Sub", hidden, add("ReduceMean", hidden, axes=[-1]))
        variance = add("ReduceMean", add("Pow", centred, number(2.0)), axes=[-1])
        normed = add("Div", centred, add("Sqrt", add("Add", variance, number(epsilon))))
        return self._scaled(name, params, normed)

    def rms_norm(self, name: str, params: Layer, hidden: str, epsilon: float) -> str:
        """x / sqrt(mean(x^2) + epsilon) * scale."""
        add = self.graph.add
        mean = add("ReduceMean", add("Pow", hidden, number(2.0)), axes=[-1])
        normed = add("Div", hidden, add("Sqrt", add("Add", mean, number(epsilon))))
        return self._scaled(name, params, normed)

    def _scaled(self, name: str, params: Layer, normed: str) -> str:
        layer = layer_of(params, name)
        scaled = self.graph.add("Mul", normed, self.graph.weight(f"{name}/scale", layer["scale"]))
        if "bias" not in layer:
            return scaled
        return self.graph.add("Add", scaled, self.graph.weight(f"{name}/bias", layer["bias"]))

    def activation(self, name: str, hidden: str) -> str:
        """The function of models/activations.py by that name."""
        if name not in ACTIVATIONS:
            raise ValueError(f"no ONNX form of {name!r}. {did_you_mean(name, ACTIVATIONS)}")
        return ACTIVATIONS[name](self.graph, hidden)

    def feed_forward(
        self, name: str, params: Layer, hidden: str, activation: str, *, gated: bool = False
    ) -> str:
        """contract(f(expand x)), or contract(f(gate x) * expand x)."""
        if gated:
            gate, inner = self.dense_layers((f"{name}/gate", f"{name}/expand"), params, hidden)
            inner = self.graph.add("Mul", self.activation(activation, gate), inner)
        else:
            inner = self.activation(activation, self.dense(f"{name}/expand", params, hidden))
        return self.dense(f"{name}/contract", params, inner)

    def bias_of(self, counts: str) -> str:
        """What is added to scores: 0 where `counts` (integers) is 1, PADDING_BIAS where it is 0."""
        add = self.graph.add
        missing = add("Sub", number(1.0), add("Cast", counts, to=1))
        return add("Mul", missing, number(PADDING_BIAS))


def layer_of(params: Layer, name: str) -> Layer:
    """The parameters of a layer by its path: attention/query."""
    for key in name.split("/"):
        params = params[key]
    return params


def _gelu(graph: Graph, x: str) -> str:
    add = graph.add
    erf = add("Erf", add("Div", x, number(math.sqrt(2.0))))
    return add("Mul", add("Mul", x, add("Add", erf, number(1.0))), number(0.5))


def _gelu_tanh(graph: Graph, x: str) -> str:
    add = graph.add
    cubed = add("Mul", add("Pow", x, number(3.0)), number(0.044715))
    inner = add("Mul", add("Add", x, cubed), number(math.sqrt(2.0 / math.pi)))
    return add(
        "Mul", add("Mul", x, number(0.5)), add("Add", add("Tanh", inner), number(1.0))
    )  # fmt: skip


def _quick_gelu(graph: Graph, x: str) -> str:
    return graph.add("Mul", x, graph.add("Sigmoid", graph.add("Mul", x, number(1.702))))


def _silu(graph: Graph, x: str) -> str:
    return graph.add("Mul", x, graph.add("Sigmoid", x))


def _mish(graph: Graph, x: str) -> str:
    return graph.add("Mul", x, graph.add("Tanh", graph.add("Softplus", x)))


def _relu(graph: Graph, x: str) -> str:
    return graph.add("Relu", x)


def _relu6(graph: Graph, x: str) -> str:
    return graph.add("Clip", x, number(0.0), number(6.0))


def _tanh(graph: Graph, x: str) -> str:
    return graph.add("Tanh", x)


ACTIVATIONS: Mapping[str, Callable[[Graph, str], str]] = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "relu": _relu,
    "relu6": _relu6,
    "silu": _silu,
    "swish": _silu,
    "mish": _mish,
    "tanh": _tanh,
}
