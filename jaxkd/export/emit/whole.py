"""Whole models as ONNX graphs: encoders, decoders with a cache, and encoder-decoders in two."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxkd.export.emit import decoder, encoder, seq2seq, start
from jaxkd.export.emit.attention import KeyValue
from jaxkd.export.emit.graph import Graph
from jaxkd.export.emit.kinds import FLOAT32, Weights
from jaxkd.export.emit.layers import Emitter, integers
from jaxkd.export.emit.vocabulary import Vocabulary
from jaxkd.models import families
from jaxkd.models import seq2seq as seq2seq_models
from jaxkd.models.families import Config
from jaxkd.models.model import Model, Params
from jaxkd.models.stack import unstack

ROW = ("batch", "length")
# Emitters of heads, and of those that predict tokens up to the product with the vocabulary.
HEADS: Mapping[type, Any] = collections.ChainMap(encoder.HEADS, decoder.HEADS)
STATES: Mapping[type, Any] = collections.ChainMap(encoder.STATES, decoder.STATES, seq2seq.STATES)
MODEL, ENCODER, DECODER = "model.onnx", "encoder_model.onnx", "decoder_model.onnx"


def input_names(config: Config) -> tuple[str, ...]:
    """The inputs besides a cache, by the names tokenizers of transformers use.

    >>> input_names(families.FAMILIES["bert"][0]())
    ('input_ids', 'attention_mask', 'token_type_ids')
    """
    segments = ("token_type_ids",) if getattr(config, "segments", 0) > 1 else ()
    return ("input_ids", "attention_mask", *segments)


def output_of(config: Config) -> tuple[str, tuple[int | str, ...]]:
    """The name and shape of the output: logits, or of a bare model its last states."""
    classes = len(config.labels)
    tasks = [label.split(":")[0] for label in config.labels]
    shapes: dict[str, tuple[int | str, ...]] = {
        "sequence_classification": ("batch", classes),
        "token_classification": (*ROW, classes),
        "multi_task": ("batch", len(set(tasks)), max(map(tasks.count, tasks))),
    }
    if config.head == "bare":
        return "last_hidden_state", (*ROW, config.width)
    return "logits", shapes.get(config.head, (*ROW, config.vocabulary))


def cache_names(config: Config, *, memory: bool = False) -> tuple[str, ...]:
    """The arrays of one block's cache, as optimum names them; of an LSTM layer its state.

    Args:
      memory: of the encoder's states, which a step reads and does not change.
    """
    if memory:
        return ("encoder.key", "encoder.value")
    if isinstance(config, seq2seq_models.Config):
        own = ("hidden", "cell") if start.is_recurrent(config) else ("key", "value")
        return tuple(f"decoder.{name}" for name in own)
    return ("key", "value")


def has_cache(config: Config) -> bool:
    """Whether the file of a decoder takes and returns a cache: it predicts the next token."""
    return config.head in ("causal_lm", "seq2seq_lm")


def check_export(config: Config) -> None:
    """Raise ValueError unless there are emitters of all the model's modules."""
    model = families.build(config)
    blocks = block_emitters(model)
    if type(model.head) in {*HEADS, *STATES} and all(
        type(block) in blocks for block in model.blocks
    ):
        return
    raise ValueError(
        f"ONNX export writes {', '.join(exportable_families())}; found {config.family} with the "
        f"head {config.head}. Save it as a HuggingFace folder instead: "
        "--config.stages.export.skip=\"('onnx',)\"."
    )


def block_emitters(model: Model) -> Mapping[type, Any]:
    """The emitters of blocks of the model's kind."""
    if model.encoder is not None:
        return seq2seq.BLOCKS
    return decoder.BLOCKS if type(model.blocks[0]) in decoder.BLOCKS else encoder.BLOCKS


def can_export(config: Config) -> bool:
    """Whether a whole model of this family and head can be written."""
    try:
        check_export(config)
    except ValueError:
        return False
    return True


def exportable_families() -> list[str]:
    """Families of which some head can be written."""
    known = {*HEADS, *STATES}
    return [
        name
        for name, (kind, _) in families.FAMILIES.items()
        if set(kind.known_heads.values()) & known
    ]


def graphs(
    config: Config, params: Params, weights: Weights = FLOAT32
) -> Iterator[tuple[str, Graph]]:
    """The model's files by name, one at a time.

    Early exits are no part of them: a file predicts with the head, as the whole model does.

    Raises:
      ValueError: for a family or head without an emitter, or parameters of another shape.
    """
    check_export(config)
    model = families.build(config)
    listed = unstack(params)
    families.check_shapes(model, listed, "params")
    listed = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), listed)
    if model.encoder is not None:
        yield ENCODER, encoder_side_graph(config, model, listed, weights)
        yield DECODER, decoder_side_graph(config, model, listed, weights)
    elif type(model.blocks[0]) in decoder.BLOCKS:
        yield MODEL, decoder_graph(config, model, listed, weights)
    else:
        yield MODEL, encoder_graph(config, model, listed, weights)


def encoder_graph(config: Config, model: Model, params: Params, weights: Weights) -> Graph:
    """`input_ids`, `attention_mask` (and `token_type_ids`), int64 -> the head's output."""
    graph = Graph()
    e = Emitter(graph, weights)
    values = {name: graph.input(name, np.int64, ROW) for name in input_names(config)}
    ids, counts = values["input_ids"], values["attention_mask"]
    segments = values.get("token_type_ids")
    hidden, inputs_of = start.of_encoder(e, config, model, params["embed"], ids, counts, segments)
    for i, block in enumerate(model.blocks):
        number = 0 if model.shared else i
        with graph.scope(f"block_{number:02d}"):
            own, inputs = params["blocks"][number], inputs_of(block.config)
            hidden = encoder.BLOCKS[type(block)](e, block.config, own, hidden, inputs)
    hidden, counts = read_by_head(e, config.head_reads, hidden, counts)
    logits = _head(e, config, model, params, hidden, counts)
    name, shape = output_of(config)
    graph.output(name, logits, np.float32, shape)
    return graph


def decoder_graph(config: Config, model: Model, params: Params, weights: Weights) -> Graph:
    """`input_ids` [B, L], `attention_mask` [B, P + L] and the cache of P positions -> the same.

    The cache is `past_key_values.I.key` and `.value` [B, G, P, K]; P may be 0. Returned are
    logits and `present.I.key` and `.value`. A model without the head causal_lm has no cache.
    """
    graph, cached = Graph(), has_cache(config)
    e = Emitter(graph, weights)
    ids = graph.input("input_ids", np.int64, ROW)
    counts = graph.input("attention_mask", np.int64, ("batch", "total" if cached else "length"))
    hidden, inputs_of = start.of_decoder(e, config, params["embed"], ids, counts)
    state: dict[str, tuple[str, tuple[int | str, ...]]] = {}
    groups = getattr(config, "kv_heads", 0) or config.heads
    shape = ("batch", groups, "past", config.key_width)
    for i, block in enumerate(model.blocks):
        past = _past(graph, i, cache_names(config), shape) if cached else ()
        inputs = dataclasses.replace(inputs_of(block.config), past=past)
        with graph.scope(f"block_{i:02d}"):
            emit = decoder.BLOCKS[type(block)]
            hidden, present = emit(e, block.config, params["blocks"][i], hidden, inputs)
        for name, value in zip(cache_names(config), present, strict=True):
            state[f"present.{i}.{name}"] = (value, ("batch", groups, "total", config.key_width))
    hidden, counts = read_by_head(e, config.head_reads, hidden, counts)
    logits = _head(e, config, model, params, hidden, counts)
    name, logits_shape = output_of(config)
    graph.output(name, logits, np.float32, logits_shape)
    for name, (value, shape) in state.items() if cached else ():
        graph.output(name, value, np.float32, shape)
    return graph


def _head(
    e: Emitter, config: Config, model: Model, params: Params, hidden: str, counts: str
) -> str:
    kind, tokens = type(model.head), params["embed"]["token"]
    if kind in STATES:
        states = STATES[kind](e, config, params["head"], hidden)
        return Vocabulary.of(params["head"], tokens).logits(e, states)
    return HEADS[kind](e, config, params["head"], hidden, counts, tokens)


def read_by_head(e: Emitter, reads: str, hidden: str, counts: str) -> tuple[str, str]:
    """Hidden states and mask as a head gets them: where it reads the mean, of one position."""
    if reads != "mean":
        return hidden, counts
    mean = e.graph.add("Unsqueeze", encoder.mean_of_tokens(e, hidden, counts), integers(1))
    any_token = e.graph.add("ReduceMax", e.graph.add("Cast", counts, to=1), axes=[1])
    return mean, e.graph.add("Cast", any_token, to=7)


def _past(graph: Graph, i: int, names: tuple[str, ...], shape: Any) -> tuple[str, ...]:
    return tuple(graph.input(f"past_key_values.{i}.{name}", np.float32, shape) for name in names)


def encoder_side_graph(config: Any, model: Model, params: Params, weights: Weights) -> Graph:
    """`input_ids`, `attention_mask` -> what the decoder attends to.

    Returned are `last_hidden_state` [B, L, D] and, computed once for all steps, each decoder
    block's keys and values of it: `present.I.encoder.key` and `.value` [B, H, L, K].
    """
    graph, own = Graph(), params["encoder"]
    e = Emitter(graph, weights)
    ids, counts = (graph.input(name, np.int64, ROW) for name in input_names(config))
    tokens = start.source_tokens(config, params["embed"], own["embed"])
    hidden, inputs_of = start.of_source(e, config, own["embed"], tokens, ids, counts)
    for i, block in enumerate(model.encoder.blocks):
        with graph.scope(f"encoder_block_{i:02d}"):
            emit = seq2seq.BLOCKS[type(block)]
            hidden, _ = emit(e, block.config, own["blocks"][i], hidden, inputs_of(block.config))
    if model.encoder.head is not None:
        with graph.scope("encoder_head"):
            hidden = e.rms_norm("norm", own["head"], hidden, config.norm_epsilon)
    memories = []
    for i, block in enumerate(model.blocks):
        with graph.scope(f"block_{i:02d}"):
            memories.append(seq2seq.memory_of(e, block.config, params["blocks"][i], hidden))
    graph.output("last_hidden_state", hidden, np.float32, (*ROW, config.width))
    shape = ("batch", config.heads, "length", config.key_width)
    for i, memory in enumerate(memories):
        names = cache_names(config, memory=True)
        for name, value in zip(names, (memory.key, memory.value), strict=True):
            graph.output(f"present.{i}.{name}", value, np.float32, shape)
    return graph


def decoder_side_graph(config: Any, model: Model, params: Params, weights: Weights) -> Graph:
    """`input_ids` [B, L] of the decoder, `encoder_attention_mask` [B, M], both caches -> logits.

    The caches are `past_key_values.I.decoder.*` of P earlier tokens (P may be 0; an LSTM's are its
    states, zeros at first) and `past_key_values.I.encoder.*`, which the encoder's file returned.
    Also returned is `present.I.decoder.*`.
    """
    graph = Graph()
    e = Emitter(graph, weights)
    ids = graph.input("input_ids", np.int64, ROW)
    memory_counts = graph.input("encoder_attention_mask", np.int64, ("batch", "source"))
    recurrent = start.is_recurrent(config)
    cache = (
        ("batch", config.width) if recurrent else ("batch", config.heads, "past", config.key_width)
    )
    pasts = [_past(graph, i, cache_names(config), cache) for i in range(config.layers)]
    source = ("batch", config.heads, "source", config.key_width)
    memories = [
        KeyValue(*_past(graph, i, cache_names(config, memory=True), source))
        for i in range(config.layers)
    ]
    before = graph.constant(np.array(0, np.int64))
    if not recurrent:
        before = graph.add("Gather", graph.add("Shape", pasts[0][0]), np.array(2, np.int64))
    hidden, inputs_of = start.of_target(e, config, params["embed"], ids, before, memory_counts)
    presents = []
    for i, block in enumerate(model.blocks):
        inputs = dataclasses.replace(inputs_of(block.config), past=pasts[i], memory=memories[i])
        with graph.scope(f"block_{i:02d}"):
            emit = seq2seq.BLOCKS[type(block)]
            hidden, present = emit(e, block.config, params["blocks"][i], hidden, inputs)
        presents.append(present)
    logits = _head(e, config, model, params, hidden, "")
    graph.output("logits", logits, np.float32, output_of(config)[1])
    after = cache if recurrent else ("batch", config.heads, "total", config.key_width)
    for i, present in enumerate(presents):
        for name, value in zip(cache_names(config), present, strict=True):
            graph.output(f"present.{i}.{name}", value, np.float32, after)
    return graph
