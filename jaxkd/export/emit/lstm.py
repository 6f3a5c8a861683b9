"""LSTM layers as one ONNX `LSTM` node each, of any length."""

from typing import Any

import numpy as np

from jaxkd.export.emit.attention import Attention, BlockInputs, Heads
from jaxkd.export.emit.layers import Emitter, Layer, integers

ORDER = (0, 3, 1, 2)  # of our gates i, f, g, o in ONNX's i, o, f, c


def encoder_layer(
    e: Emitter, config: Any, params: Layer, hidden: str, inputs: BlockInputs
) -> tuple[str, tuple[str, ...]]:
    """Both directions side by side, added to the input; padding comes after the tokens."""
    add, half = e.graph.add, config.width // 2
    weights = _weights(e, "forward+backward", [params["forward"], params["backward"]], half)
    rows = inputs.layout.by_position(e.graph, hidden, config.width)
    by_time = add("Transpose", rows, perm=[1, 0, 2])
    out = add(
        "LSTM", by_time, *weights, inputs.lengths, hidden_size=half, direction="bidirectional"
    )  # [L, 2, B, H]
    both = add("Transpose", out, perm=[2, 0, 1, 3])
    joined = add("Reshape", both, integers(0, 0, config.width))
    return add("Add", hidden, inputs.layout.flat(e.graph, joined, config.width)), ()


def decoder_layer(
    e: Emitter, config: Any, params: Layer, hidden: str, inputs: BlockInputs
) -> tuple[str, tuple[str, ...]]:
    """An LSTM from the state of `inputs.past`, then attention to the encoder's states."""
    add, zero = e.graph.add, integers(0)
    weights = _weights(e, "lstm", [params["lstm"]], config.width)
    rows = inputs.layout.by_position(e.graph, hidden, config.width)
    by_time = add("Transpose", rows, perm=[1, 0, 2])
    state = [add("Unsqueeze", each, zero) for each in inputs.past]
    out, *after = add("LSTM", by_time, *weights, None, *state, outputs=3, hidden_size=config.width)
    steps = add("Transpose", add("Squeeze", out, integers(1)), perm=[1, 0, 2])
    hidden = add("Add", hidden, inputs.layout.flat(e.graph, steps, config.width))
    cross = Attention(e, "cross", params, Heads.of(config), inputs.layout)
    out = cross.across(hidden, inputs.memory, inputs.memory_bias)
    present = tuple(add("Squeeze", each, zero) for each in after)
    return add("Add", hidden, out), present


def _weights(e: Emitter, name: str, directions: list[Layer], width: int) -> list[str]:
    """W [directions, 4 H, D], R [directions, 4 H, H] and B [directions, 8 H] of a node."""

    def stacked(key: str, *path: str) -> np.ndarray:
        arrays = []
        for layer in directions:
            array = layer[key]
            for step in path:
                array = array[step]
            gates = np.split(np.asarray(array), 4, axis=-1)
            arrays.append(np.concatenate([gates[i] for i in ORDER], axis=-1).T)
        return np.ascontiguousarray(np.stack(arrays))

    outer = e.weights.whole(e.graph, f"{name}/input", stacked("input", "kernel"), axis=2)
    inner = e.weights.whole(e.graph, f"{name}/recurrent", stacked("recurrent"), axis=2)
    bias = stacked("input", "bias")
    both = np.concatenate([bias, np.zeros_like(bias)], axis=1)
    return [outer, inner, e.graph.weight(f"{name}/bias", both)]
