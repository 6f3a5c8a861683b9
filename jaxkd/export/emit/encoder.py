"""Encoders as ONNX operators: BERT and what shares its block, and ModernBERT."""

import collections
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxkd.export.emit.attention import Attention, BlockInputs, Heads, RotaryTables, band
from jaxkd.export.emit.layers import Emitter, Layer, integers, number
from jaxkd.models import bert, heads, modernbert
from jaxkd.models.rotary import Rotary

NEVER = -1e9  # the score of a class that a task does not have, as models/heads.py gives it


def bert_embed(
    e: Emitter, config: Any, params: Layer, ids: str, counts: str, segments: str | None
) -> str:
    """Token + position + segment, normalised; widened where the model is wider."""
    add, embed = e.graph.add, params["embed"]
    hidden = e.weights.rows(e.graph, "embed/token", embed["token"], ids)
    if config.segments:
        table = embed["segment"]
        if segments is None:
            rows = e.graph.weight("embed/segment", table)
            first = add("Gather", rows, np.array(0, np.int64))
        else:
            first = e.weights.rows(e.graph, "embed/segment", table, segments)
        hidden = add("Add", hidden, first)
    if config.position_offset:
        counted = add("Mul", counted_up(e, counts), counts)
        rows = add("Add", counted, np.array(config.position_offset - 1, np.int64))
    else:
        rows = positions(e, ids)
    hidden = add("Add", hidden, e.weights.rows(e.graph, "embed/position", embed["position"], rows))
    with e.graph.scope("embed"):
        hidden = e.layer_norm("norm", embed, hidden, config.norm_epsilon)
        return e.dense("widen", embed, hidden) if config.factorised else hidden


def bert_block(e: Emitter, config: Any, params: Layer, hidden: str, inputs: BlockInputs) -> str:
    """Self-attention and feed-forward, each added to its input and normalised after."""
    add, epsilon = e.graph.add, config.norm_epsilon
    attention = Attention(e, "attention", params, Heads.of(config), inputs.layout)
    out = attention(hidden, inputs.bias)
    hidden = e.layer_norm("attention_norm", params, add("Add", out, hidden), epsilon)
    out = e.feed_forward("feed_forward", params, hidden, config.activation)
    return e.layer_norm("norm", params, add("Add", out, hidden), epsilon)


def modernbert_embed(
    e: Emitter, config: Any, params: Layer, ids: str, counts: str, segments: str | None
) -> str:
    """The token's vector, normalised."""
    hidden = e.weights.rows(e.graph, "embed/token", params["embed"]["token"], ids)
    with e.graph.scope("embed"):
        return e.layer_norm("norm", params["embed"], hidden, config.norm_epsilon)


def modernbert_block(
    e: Emitter, config: Any, params: Layer, hidden: str, inputs: BlockInputs
) -> str:
    """x + attention(norm(x)), then x + feed_forward(norm(x)), gated."""
    add, epsilon, normed = e.graph.add, config.norm_epsilon, hidden
    if config.attention_norm:
        normed = e.layer_norm("attention_norm", params, hidden, epsilon)
    attention = Attention(e, "attention", params, Heads.of(config), inputs.layout)
    hidden = add("Add", hidden, attention(normed, inputs.bias, inputs.rotary))
    normed = e.layer_norm("norm", params, hidden, epsilon)
    out = e.feed_forward("feed_forward", params, normed, config.activation, gated=True)
    return add("Add", hidden, out)


def positions(e: Emitter, ids: str) -> str:
    """0, 1, 2 ... for each column of ids [B, L]: int64 [L]."""
    return e.graph.once(
        "Range", np.array(0, np.int64), length_of(e, ids), np.array(1, np.int64)
    )  # fmt: skip


def length_of(e: Emitter, ids: str) -> str:
    """The number of columns, an int64 scalar."""
    return e.graph.once("Gather", e.graph.once("Shape", ids), np.array(1, np.int64))


def block_inputs(e: Emitter, config: Any, ids: str, counts: str) -> Callable[[Any], BlockInputs]:
    """For a block's config: the bias of its scores and its rotary tables, each made once."""
    every = e.graph.add("Unsqueeze", e.graph.add("Unsqueeze", counts, integers(1)), integers(2))
    whole = e.bias_of(every)  # [B, 1, 1, L]
    windows: dict[int, str] = {}
    tables: dict[float, RotaryTables] = {}

    def inputs_of(block: Any) -> BlockInputs:
        window, bias = getattr(block, "window", 0), whole
        if window:
            if window not in windows:
                near = e.graph.add("Mul", every, band(e, length_of(e, ids), window))
                windows[window] = e.bias_of(near)
            bias = windows[window]
        theta = getattr(block, "rope_theta", None)
        if theta is None:
            return BlockInputs(bias=bias)
        if theta not in tables:
            tables[theta] = rotary_tables(
                e, Rotary(block.key_width, theta), token_positions(e, counts)
            )
        return BlockInputs(bias=bias, rotary=tables[theta])

    return inputs_of


def counted_up(e: Emitter, counts: str) -> str:
    """Tokens up to each column: int64 [B, L]. Summed as floats: TensorRT sums no integers."""
    add = e.graph.once
    summed = add("CumSum", add("Cast", counts, to=1), np.array(1, np.int64))
    return add("Cast", summed, to=7)


def token_positions(e: Emitter, counts: str) -> str:
    """0, 1, 2 ... counted over tokens, not padding: int64 [B, L]."""
    add, one = e.graph.once, np.array(1, np.int64)
    counted = add("Sub", counted_up(e, counts), one)
    return add("Max", counted, np.array(0, np.int64))


def rotary_tables(e: Emitter, rotary: Rotary, positions: str) -> RotaryTables:
    """Cosines and sines of positions [B, L]."""
    add = e.graph.add
    rows = add("Cast", add("Unsqueeze", positions, integers(1, 3)), to=1)
    angle = add("Mul", rows, rotary.frequencies())
    return RotaryTables(add("Cos", angle), add("Sin", angle))


def first_token(e: Emitter, hidden: str) -> str:
    """[B, L, D] -> [B, D]."""
    return e.graph.add("Gather", hidden, np.array(0, np.int64), axis=1)


def masked_lm_states(e: Emitter, config: Any, params: Layer, hidden: str) -> str:
    """Transform and norm, before the vocabulary."""
    with e.graph.scope("head"):
        hidden = e.dense("transform", params, hidden)
        hidden = e.activation(config.head_activation or config.activation, hidden)
        return e.layer_norm("norm", params, hidden, config.norm_epsilon)


def sequence_head(
    e: Emitter, config: Any, params: Layer, hidden: str, counts: str, table: np.ndarray
) -> str:
    """Scores of the whole sequence from its first token: [B, C]."""
    with e.graph.scope("head"):
        pooled = e.dense("pool", params, first_token(e, hidden))
        return e.dense("classify", params, e.activation(config.pool_activation, pooled))


def multi_task_head(
    e: Emitter, config: Any, params: Layer, hidden: str, counts: str, table: np.ndarray
) -> str:
    """Scores for several tasks: [B, K, C]; a task's missing classes get NEVER."""
    sizes = collections.Counter(label.split(":")[0] for label in config.labels)
    widest, scores, first = max(sizes.values()), [], first_token(e, hidden)
    with e.graph.scope("head"):
        for task, size in sizes.items():
            inner = e.activation(config.pool_activation, e.dense(f"{task}_pool", params, first))
            layer = params[f"{task}_classify"]
            wider = {
                "kernel": np.pad(layer["kernel"], ((0, 0), (0, widest - size))),
                "bias": np.pad(layer["bias"], (0, widest - size), constant_values=NEVER),
            }
            own = e.dense(f"{task}_classify", {f"{task}_classify": wider}, inner)
            scores.append(e.graph.add("Unsqueeze", own, integers(1)))
        return e.graph.add("Concat", *scores, axis=1)


def token_head(
    e: Emitter, config: Any, params: Layer, hidden: str, counts: str, table: np.ndarray
) -> str:
    """Scores of every token: [B, L, C]."""
    with e.graph.scope("head"):
        return e.dense("classify", params, hidden)


def bare_head(
    e: Emitter, config: Any, params: Layer, hidden: str, counts: str, table: np.ndarray
) -> str:
    """The last hidden states: [B, L, D]. A pooler is left out, as nothing of ours reads it."""
    return hidden


def modernbert_head(
    e: Emitter, config: Any, params: Layer, hidden: str, counts: str, table: np.ndarray
) -> str:
    """The last norm, and behind it what the head is; of a masked_lm all but the vocabulary."""
    with e.graph.scope("head"):
        hidden = e.layer_norm("final_norm", params, hidden, config.norm_epsilon)
    if config.head == "bare":
        return hidden
    if config.head == "sequence_classification":
        hidden = (
            first_token(e, hidden)
            if config.classifier_pooling == "cls"
            else mean_of_tokens(e, hidden, counts)
        )
    with e.graph.scope("head"):
        hidden = e.dense("transform", params, hidden)
        hidden = e.activation(config.head_activation, hidden)
        hidden = e.layer_norm("norm", params, hidden, config.norm_epsilon)
        return hidden if config.head == "masked_lm" else e.dense("classify", params, hidden)


def modernbert_states(e: Emitter, config: Any, params: Layer, hidden: str) -> str:
    """Last norm, transform and norm, before the vocabulary."""
    return modernbert_head(e, config, params, hidden, "", np.empty(0))


def mean_of_tokens(e: Emitter, hidden: str, counts: str) -> str:
    """The mean over positions that are not padding: [B, L, D] -> [B, D]."""
    add = e.graph.add
    weights = add("Cast", add("Unsqueeze", counts, integers(2)), to=1)
    total = add("ReduceSum", add("Mul", hidden, weights), integers(1), keepdims=0)
    count = add("ReduceSum", weights, integers(1), keepdims=0)
    return add("Div", total, add("Max", count, number(1.0)))


Head = Callable[[Emitter, Any, Layer, str, str, np.ndarray], str]
# Of a head that predicts tokens: what it makes of hidden states before the vocabulary.
States = Callable[[Emitter, Any, Layer, str], str]

EMBEDS: Mapping[type, Any] = {bert.Embed: bert_embed, modernbert.Embed: modernbert_embed}
BLOCKS: Mapping[type, Any] = {bert.Block: bert_block, modernbert.Block: modernbert_block}
HEADS: Mapping[type, Head] = {
    heads.SequenceHead: sequence_head,
    heads.TokenHead: token_head,
    heads.MultiTaskHead: multi_task_head,
    heads.PooledHead: bare_head,
    modernbert.SequenceHead: modernbert_head,
    modernbert.TokenHead: modernbert_head,
    modernbert.BareHead: modernbert_head,
}
STATES: Mapping[type, States] = {
    heads.MaskedLmHead: masked_lm_states,
    modernbert.MaskedLmHead: modernbert_states,
}
