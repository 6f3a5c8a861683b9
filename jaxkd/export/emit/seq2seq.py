"""Encoder-decoders as ONNX operators: Marian, BART and T5; recurrent ones are in lstm.py."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxkd.export.emit import encoder, lstm
from jaxkd.export.emit.attention import (
    PLAIN,
    Attention,
    BlockInputs,
    Heads,
    KeyValue,
    Layout,
)
from jaxkd.export.emit.decoder import causal, distances
from jaxkd.export.emit.layers import Emitter, Layer, integers, number
from jaxkd.models import bert, heads, seq2seq, t5
from jaxkd.models import lstm as lstm_model

Cache = tuple[str, ...]


def embed(
    e: Emitter, config: Any, params: Layer, name: str, rows: str, start: str, length: str
) -> str:
    """Token vectors and positions from `start` on; `params` of the part `name`.

    Args:
      rows: the tokens' vectors, [B, L, D].
      start, length: int64 scalars.
    """
    add = e.graph.add
    hidden = rows
    if config.scaled_embedding:
        hidden = add("Mul", hidden, number(math.sqrt(config.width)))
    if config.positions != "none":
        columns = add("Range", start, add("Add", start, length), np.array(1, np.int64))
        if config.positions == "learned":
            table = params["position"][config.position_offset :]
            position = e.weights.rows(e.graph, f"{name}/position", table, columns)
        else:
            table = seq2seq.sinusoids(config.max_length, config.width)
            position = add("Gather", table, columns)
        hidden = add("Add", hidden, position)
    if config.embedding_norm:
        with e.graph.scope(name):
            hidden = e.layer_norm("norm", params, hidden, config.norm_epsilon)
    return hidden


def t5_embed(
    e: Emitter, config: Any, params: Layer, name: str, rows: str, start: str, length: str
) -> str:
    """The tokens' vectors as they are."""
    return rows


def block(
    e: Emitter, config: Any, params: Layer, hidden: str, inputs: BlockInputs
) -> tuple[str, Cache]:
    """Self-attention, cross-attention and feed-forward, each added and normalised after."""

    def added(out: str, name: str) -> str:
        return e.layer_norm(name, params, e.graph.add("Add", out, hidden), config.norm_epsilon)

    own, cross = (
        Attention(e, name, params, Heads.of(config), inputs.layout)
        for name in ("attention", "cross")
    )
    out, present = own.cached(hidden, inputs.bias, past_of(inputs))
    hidden = added(out, "attention_norm")
    hidden = added(cross.across(hidden, inputs.memory, inputs.memory_bias), "cross_norm")
    out = e.feed_forward("feed_forward", params, hidden, config.activation)
    return added(out, "norm"), (present.key, present.value)


def past_of(inputs: BlockInputs) -> KeyValue | None:
    return KeyValue(*inputs.past) if inputs.past else None


def t5_block(
    e: Emitter, config: Any, params: Layer, hidden: str, inputs: BlockInputs
) -> tuple[str, Cache]:
    """Each x + f(norm(x)); an encoder's block has no memory."""
    add = e.graph.add

    def normed(name: str) -> str:
        return e.rms_norm(name, params, hidden, config.norm_epsilon)

    own, cross = (
        Attention(e, name, params, Heads.of(config, scaled=False), inputs.layout)
        for name in ("attention", "cross")
    )
    out, present = own.cached(normed("attention_norm"), inputs.bias, past_of(inputs))
    hidden = add("Add", hidden, out)
    if inputs.memory is not None:
        out = cross.across(normed("cross_norm"), inputs.memory, inputs.memory_bias)
        hidden = add("Add", hidden, out)
    out = e.feed_forward(
        "feed_forward", params, normed("norm"), config.activation, gated=config.gated
    )
    return add("Add", hidden, out), (present.key, present.value)


def t5_score_bias(
    e: Emitter, config: Any, table: np.ndarray, name: str, length: str, room: str, *, encodes: bool
) -> str:
    """The bias by distance of key and query: [1, H, L, S]."""
    add, furthest = e.graph.add, config.max_distance
    every = jnp.arange(-furthest, furthest + 1)
    buckets = t5.bucket(every, config.buckets, furthest, both_sides=encodes)
    by_distance = np.asarray(table)[np.asarray(buckets)]  # [2 furthest + 1, H]
    limit = np.array(furthest, np.int64)
    distance = distances(e, length, room)
    near = add("Min", add("Max", distance, -limit), limit)
    chosen = e.weights.rows(e.graph, name, by_distance, add("Add", near, limit))  # [L, S, H]
    return add("Unsqueeze", add("Transpose", chosen, perm=[2, 0, 1]), integers(0))


def memory_of(
    e: Emitter, config: Any, params: Layer, states: str, layout: Layout = PLAIN
) -> KeyValue:
    """Keys and values of the encoder's states for one decoder block."""
    scaled = not isinstance(config, t5.Config)
    return Attention(e, "cross", params, Heads.of(config, scaled=scaled), layout).memory(states)


def encoder_block(
    e: Emitter, config: Any, params: Layer, hidden: str, inputs: BlockInputs
) -> tuple[str, Cache]:
    """BERT's block, in an encoder-decoder's encoder."""
    return encoder.bert_block(e, config, params, hidden, inputs), ()


def seq2seq_states(e: Emitter, config: Any, params: Layer, hidden: str) -> str:
    """The hidden states as they are."""
    return hidden


def t5_states(e: Emitter, config: Any, params: Layer, hidden: str) -> str:
    """A norm, scaled where the embedding is the vocabulary's matrix."""
    with e.graph.scope("head"):
        hidden = e.rms_norm("norm", params, hidden, config.norm_epsilon)
        if config.scaled_output:
            hidden = e.graph.add("Mul", hidden, number(config.width**-0.5))
    return hidden


def seq2seq_bias(e: Emitter, config: Any, params: Layer, length: str, room: str) -> str:
    """What a decoder adds to its scores: [1, 1 or H, L, S]."""
    bias = e.bias_of(causal(e, length, room))
    if "relative" not in params:
        return e.graph.add("Unsqueeze", bias, integers(0, 1))
    own = t5_score_bias(
        e, config, params["relative"], "embed/relative", length, room, encodes=False
    )
    return e.graph.add("Add", own, bias)


BLOCKS: Mapping[type, Any] = {
    seq2seq.Block: block,
    t5.Block: t5_block,
    bert.Block: encoder_block,
    lstm_model.EncoderLayer: lstm.encoder_layer,
    lstm_model.DecoderLayer: lstm.decoder_layer,
}
STATES: Mapping[type, Any] = {heads.Seq2SeqHead: seq2seq_states, t5.LmHead: t5_states}
