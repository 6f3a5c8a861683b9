"""What comes before the blocks, as ONNX operators: embeddings, and what all blocks are given."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxkd.export.emit import decoder, encoder, seq2seq
from jaxkd.export.emit.attention import BlockInputs
from jaxkd.export.emit.layers import Emitter, Layer, integers
from jaxkd.models.families import Config
from jaxkd.models.model import Model

# Hidden states, and for a block's config what such a block gets besides them.
Start = tuple[str, Callable[[Any], BlockInputs]]


def is_recurrent(config: Config) -> bool:
    return config.family == "lstm"


def of_encoder(
    e: Emitter, config: Config, model: Model, embed: Layer, ids: str, counts: str, segments: Any
) -> Start:
    """Of an encoder alone, from ids and mask [B, L]."""
    emit = encoder.EMBEDS[type(model.embed)]
    hidden = emit(e, config, {"embed": embed}, ids, counts, segments)
    return hidden, encoder.block_inputs(e, config, ids, counts)


def of_decoder(e: Emitter, config: Config, embed: Layer, ids: str, counts: str) -> Start:
    """Of a decoder, from the last L ids [B, L] and the mask of all tokens [B, S]."""
    positions = decoder.last_columns(e, ids, encoder.token_positions(e, counts))
    hidden = decoder.embed(e, config, {"embed": embed}, ids, positions)
    bias = decoder.causal_bias(e, ids, counts)
    inputs = decoder.block_inputs(e, config, positions, bias)
    return hidden, lambda block: inputs


def of_source(
    e: Emitter, config: Any, embed: Layer, tokens: np.ndarray, ids: str, counts: str
) -> Start:
    """Of an encoder-decoder's encoder; `tokens` is its embedding, which may be the decoder's."""
    length = encoder.length_of(e, ids)
    name = "encoder_embed/token" if config.source_vocabulary else "embed/token"
    rows = e.weights.rows(e.graph, name, tokens, ids)
    first = e.graph.constant(np.array(0, np.int64))
    inner = config.encoder()
    hidden = embed_of(config)(e, inner, embed, "encoder_embed", rows, first, length)
    if is_recurrent(config):
        total = e.graph.add("Cast", counts, to=1)
        total = e.graph.add("ReduceSum", total, integers(1), keepdims=0)
        inputs = BlockInputs(lengths=e.graph.add("Cast", total, to=6))
        return hidden, lambda block: inputs
    bias = e.bias_of(decoder.columns(e, counts))
    if "relative" in embed:
        relative = seq2seq.t5_score_bias(
            e, config, embed["relative"], "encoder_embed/relative", length, length, encodes=True
        )
        bias = e.graph.add("Add", relative, bias)
    return hidden, lambda block: BlockInputs(bias=bias)


def of_target(
    e: Emitter, config: Any, embed: Layer, ids: str, before: str, memory_counts: str
) -> Start:
    """Of an encoder-decoder's decoder, whose ids [B, L] follow `before` (int64) earlier ones."""
    bias, length = "", encoder.length_of(e, ids)
    if not is_recurrent(config):
        room = e.graph.add("Add", before, length)
        bias = seq2seq.seq2seq_bias(e, config, embed, length, room)
    rows = e.weights.rows(e.graph, "embed/token", embed["token"], ids)
    hidden = embed_of(config)(e, config, embed, "embed", rows, before, length)
    inputs = BlockInputs(
        bias=bias, memory_bias=e.bias_of(decoder.columns(e, memory_counts))
    )  # fmt: skip
    return hidden, lambda block: inputs


def embed_of(config: Config) -> Callable[..., str]:
    """The emitter of an encoder-decoder's embedding behind the tokens' vectors."""
    return seq2seq.t5_embed if "buckets" in vars(config) else seq2seq.embed


def source_tokens(config: Any, embed: Layer, encoder_embed: Layer) -> np.ndarray:
    """The token embedding that an encoder-decoder's encoder reads."""
    return encoder_embed["token"] if config.source_vocabulary else embed["token"]
