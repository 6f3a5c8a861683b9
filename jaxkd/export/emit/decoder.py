"""Decoders as ONNX operators: GPT-2, Llama and what shares their block, with a cache."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxkd.export.emit.attention import Attention, BlockInputs, Heads, KeyValue, Layout
from jaxkd.export.emit.encoder import length_of, rotary_tables
from jaxkd.export.emit.layers import Emitter, Layer, integers, layer_of
from jaxkd.models import decoder, heads
from jaxkd.models.rotary import Rotary


def embed(e: Emitter, config: Any, params: Layer, ids: str, positions: str) -> str:
    """The token's vector, and where positions are learned the position's."""
    hidden = e.weights.rows(e.graph, "embed/token", params["embed"]["token"], ids)
    if config.rotary:
        return hidden
    table = params["embed"]["position"]
    rows = e.weights.rows(e.graph, "embed/position", table, positions)
    return e.graph.add("Add", hidden, rows)


def block(
    e: Emitter, config: Any, params: Layer, hidden: str, inputs: BlockInputs
) -> tuple[str, tuple[str, ...]]:
    """x + attention(norm(x)), then x + feed_forward(norm(x)); also the cache after these tokens."""
    add = e.graph.add
    epsilon = config.norm_epsilon if config.query_norm else 0.0
    attention = Attention(
        e, "attention", params, Heads.of(config, norm_epsilon=epsilon), inputs.layout
    )
    past = KeyValue(*inputs.past) if inputs.past else None
    normed = norm(e, config, "attention_norm", params, hidden)
    out, present = attention.cached(normed, inputs.bias, past, inputs.rotary)
    hidden = add("Add", hidden, out)
    normed = norm(e, config, "norm", params, hidden)
    if config.experts:
        out = experts(e, config, "experts", params, normed, inputs.layout)
    else:
        out = e.feed_forward("feed_forward", params, normed, config.activation, gated=config.gated)
    return add("Add", hidden, out), (present.key, present.value)


def experts(e: Emitter, config: Any, name: str, params: Layer, hidden: str, layout: Layout) -> str:
    """The chosen experts' answers by their probabilities, and the shared expert's.

    Every expert sees every token and those that are not chosen count 0: opset 13 has no grouped
    product, so the work grows with the number of experts. Their matrices are multiplied in float32,
    whatever they are stored as.
    """
    add, graph, layer = e.graph.add, e.graph, layer_of(params, name)
    chances = e.dense(f"{name}/router", params, hidden)
    probs = add("Softmax", layout.by_position(graph, chances, config.experts), axis=-1)
    share, chosen = add("TopK", probs, integers(config.experts_per_token), outputs=2, axis=-1)
    if config.normalise_experts:
        share = add("Div", share, add("ReduceSum", share, integers(-1)))
    which = add(
        "OneHot", chosen, np.array(config.experts, np.int64), np.array([0, 1], np.float32), axis=-1
    )  # [B, L, chosen, E]
    weighted = add("Mul", which, add("Unsqueeze", share, integers(-1)))
    share = add("ReduceSum", weighted, integers(-2), keepdims=0)  # [B, L, E]
    rows = layout.by_position(graph, hidden, config.width)
    tokens = add("Unsqueeze", rows, integers(-3))  # [B, 1, L, D] by [E, D, F]
    gate, inner = (
        add("MatMul", tokens, e.weights.whole(graph, f"{name}/{kind}", layer[kind], axis=-2))
        for kind in ("gate", "expand")
    )
    inner = add("Mul", e.activation(config.activation, gate), inner)
    contract = e.weights.whole(graph, f"{name}/contract", layer["contract"], axis=-2)
    answers = add("MatMul", inner, contract)
    by_expert = add("Unsqueeze", add("Transpose", share, perm=[0, 2, 1]), integers(-1))
    out = add("ReduceSum", add("Mul", answers, by_expert), integers(1), keepdims=0)
    out = layout.flat(graph, out, config.width)
    common = e.feed_forward(f"{name}/shared", params, hidden, config.activation, gated=True)
    gate = add("Sigmoid", e.dense(f"{name}/shared_gate", params, hidden))
    return add("Add", out, add("Mul", gate, common))


def norm(e: Emitter, config: Any, name: str, params: Layer, hidden: str) -> str:
    """The family's norm."""
    kind = e.rms_norm if config.rms_norm else e.layer_norm
    return kind(name, params, hidden, config.norm_epsilon)


def rotary_of(config: Any) -> Rotary:
    """The rotary positions of a decoder's blocks."""
    return Rotary(
        config.key_width, config.rope_theta, config.rope, config.rope_factor, config.rope_low,
        config.rope_high, config.rope_original,
    )  # fmt: skip


def block_inputs(e: Emitter, config: Any, positions: str, bias: str) -> BlockInputs:
    """What all blocks of a decoder get, but for their caches."""
    if not config.rotary:
        return BlockInputs(bias=bias)
    return BlockInputs(bias=bias, rotary=rotary_tables(e, rotary_of(config), positions))


def causal_bias(e: Emitter, ids: str, counts: str) -> str:
    """0 where a token attends: positions up to its own that are no padding; [B, 1, L, S].

    Args:
      counts: int64 [B, S], 1 on tokens; the ids are those of its last L columns.
    """
    seen = causal(e, length_of(e, ids), length_of(e, counts))
    return e.bias_of(e.graph.add("Mul", columns(e, counts), seen))


def columns(e: Emitter, counts: str) -> str:
    """[B, S] -> [B, 1, 1, S]."""
    return e.graph.once("Unsqueeze", counts, integers(1, 2))


def causal(e: Emitter, length: str, room: str) -> str:
    """1 where a column is at most the token's own: int64 [L, S]."""
    return e.graph.add("Cast", e.graph.add("Less", distances(e, length, room), _ONE), to=7)


def distances(e: Emitter, length: str, room: str) -> str:
    """Column minus the token's own column, of the last L of S columns: int64 [L, S]."""
    add, zero = e.graph.once, np.array(0, np.int64)
    own = add("Range", add("Sub", room, length), room, _ONE)
    return add("Sub", add("Range", zero, room, _ONE), add("Unsqueeze", own, integers(1)))


_ONE = np.array(1, np.int64)


def last_columns(e: Emitter, ids: str, values: str) -> str:
    """Of [B, S], the last L columns, those of the ids."""
    add = e.graph.once
    before = add("Sub", length_of(e, values), length_of(e, ids))
    start = add("Unsqueeze", before, integers(0))
    return add("Slice", values, start, integers(2**31 - 1), integers(1))


def causal_lm_states(e: Emitter, config: Any, params: Layer, hidden: str) -> str:
    """The final norm, before the vocabulary."""
    with e.graph.scope("head"):
        return norm(e, config, "norm", params, hidden)


def last_token_head(
    e: Emitter, config: Any, params: Layer, hidden: str, counts: str, table: np.ndarray
) -> str:
    """Scores of a whole sequence from its last token that is not padding: [B, C]."""
    add = e.graph.add
    numbered = add("Mul", counts, add("Range", np.array(0, np.int64), length_of(e, counts), _ONE))
    # Of floats: onnxruntime 1.10 has no ArgMax of int64.
    last = add("ArgMax", add("Cast", numbered, to=1), axis=1)  # [B, 1]
    width = config.width
    shape = add("Concat", add("Shape", last), integers(width), axis=0)
    index = add("Expand", add("Unsqueeze", last, integers(2)), shape)
    chosen = add("GatherElements", hidden, index, axis=1)  # [B, 1, D]
    with e.graph.scope("head"):
        normed = norm(e, config, "norm", params, add("Squeeze", chosen, integers(1)))
        return e.dense("classify", params, normed)


def norm_head(
    e: Emitter, config: Any, params: Layer, hidden: str, counts: str, table: np.ndarray
) -> str:
    """The hidden states after the final norm: [B, L, D]."""
    with e.graph.scope("head"):
        return norm(e, config, "norm", params, hidden)


BLOCKS: Mapping[type, Any] = {decoder.Block: block}
HEADS: Mapping[type, Any] = {
    heads.LastTokenHead: last_token_head,
    heads.NormHead: norm_head,
}
STATES: Mapping[type, Any] = {heads.CausalLmHead: causal_lm_states}
