"""A model cut into graphs that run one after another: before the blocks, each block, the heads.

A block's graph has its weights as inputs, so that equal blocks share one small graph and only their
weights differ. What comes before the blocks, and heads, are small and hold their own weights. The
runner (jaxkd/device/) gathers the tokens' vectors itself and multiplies with the vocabulary.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxkd.export.emit import encoder, seq2seq, start
from jaxkd.export.emit.attention import BlockInputs, KeyValue, Layout, RotaryTables
from jaxkd.export.emit.graph import Graph
from jaxkd.export.emit.kinds import Weights
from jaxkd.export.emit.layers import Emitter, Layer, integers
from jaxkd.export.emit.vocabulary import TOKENS
from jaxkd.export.emit.whole import (
    HEADS,
    ROW,
    STATES,
    block_emitters,
    cache_names,
    has_cache,
    input_names,
    output_of,
    read_by_head,
)
from jaxkd.models.families import Config
from jaxkd.models.model import Model

TOKEN_ROWS = "token_rows"  # [B, L, E] float32, gathered by the runner
TOKEN_TABLES = (TOKENS, "encoder_embed/token")


@dataclasses.dataclass(frozen=True)
class Gathered:
    """A kind of weights; vectors of tokens are the graph's input `token_rows`."""

    kind: Weights

    def rows(self, graph: Graph, name: str, table: np.ndarray, ids: str) -> str:
        if name in TOKEN_TABLES:
            return graph.input(TOKEN_ROWS, np.float32, (*ROW, table.shape[1]))
        return self.kind.rows(graph, name, table, ids)

    # Each by name: Python 3.12's protocols do not see what __getattr__ gives.
    @property
    def name(self) -> str:
        return self.kind.name

    def dense(
        self, graph: Graph, names: tuple[str, ...], hidden: str, layers: tuple[Layer, ...]
    ) -> list[str]:
        return self.kind.dense(graph, names, hidden, layers)

    def whole(self, graph: Graph, name: str, array: np.ndarray, axis: int) -> str:
        return self.kind.whole(graph, name, array, axis)

    def tied(self, graph: Graph, name: str, table: np.ndarray, hidden: str) -> str:
        return self.kind.tied(graph, name, table, hidden)


@dataclasses.dataclass(frozen=True)
class Begin:
    """The graph before the blocks, and which of its outputs each kind of block takes.

    Its outputs are `hidden` [B L, D] and what `names` say.
    """

    graph: Graph
    inputs_of: Callable[[Any], Mapping[str, str]]  # of a block's config: input -> output


def begin(
    config: Config, model: Model, embed: Layer, weights: Weights, *, side: str = "",
    tokens: np.ndarray | None = None,
) -> Begin:  # fmt: skip
    """What comes before the blocks.

    Args:
      embed: parameters of the embedding; of an encoder-decoder those of the side's.
      side: "encoder" or "decoder" of an encoder-decoder.
      tokens: the token embedding that the encoder's side reads.
    """
    graph = Graph()
    e = Emitter(graph, Gathered(weights))
    ids = graph.input("input_ids", np.int64, ROW)
    if side == "decoder":
        before = graph.input("before", np.int64, ())
        memory = graph.input("encoder_attention_mask", np.int64, ("batch", "source"))
        hidden, inputs_of = start.of_target(e, config, embed, ids, before, memory)
    elif side == "encoder":
        counts = graph.input("attention_mask", np.int64, ROW)
        hidden, inputs_of = start.of_source(e, config, embed, tokens, ids, counts)
    elif is_decoder(model):
        counts = graph.input("attention_mask", np.int64, ("batch", "total"))
        hidden, inputs_of = start.of_decoder(e, config, embed, ids, counts)
    else:
        values = {name: graph.input(name, np.int64, ROW) for name in input_names(config)[1:]}
        counts, segments = values["attention_mask"], values.get("token_type_ids")
        hidden, inputs_of = start.of_encoder(e, config, model, embed, ids, counts, segments)
    flat = graph.add("Reshape", hidden, integers(-1, config.width))
    graph.output("hidden", flat, np.float32, ("rows", config.width))
    names: dict[str, str] = {}  # of values

    def inputs(block: Any) -> Mapping[str, str]:
        arguments = inputs_of(block)
        needed = {
            "bias": arguments.bias,
            "memory_bias": arguments.memory_bias,
            "lengths": arguments.lengths,
        }
        if arguments.rotary is not None:
            needed |= {"cos": arguments.rotary.cos, "sin": arguments.rotary.sin}
        chosen = {}
        for name, value in needed.items():
            if not value:
                continue
            if value not in names:
                taken = sum(other.split(".")[0] == name for other in names.values())
                names[value] = f"{name}.{taken}"
                dtype, shape = declared(name)
                graph.output(names[value], value, dtype, shape)
            chosen[name] = names[value]
        return chosen

    return Begin(graph, inputs)


def is_decoder(model: Model) -> bool:
    """Whether the blocks are causal, and of no encoder-decoder."""
    return model.encoder is None and block_emitters(model) is not encoder.BLOCKS


def declared(name: str) -> tuple[Any, tuple[str, ...]]:
    """Type and free dimensions of what blocks are arguments besides hidden states."""
    if name == "lengths":
        return np.int32, ("batch",)
    return np.float32, tuple(f"{name}_{i}" for i in range(4))


def block(
    config: Config, model: Model, module: Any, params: Layer, weights: Weights,
    names: Mapping[str, str], *, side: str = "",
) -> Graph:  # fmt: skip
    """A block: `hidden` [B L, D], `lead` (B and L), what `names` has, its caches -> `new_hidden`.

    A decoder's block also takes `past.*` and returns `present.*`; one of an encoder-decoder takes
    the `memory.*` of the encoder's states.
    """
    graph = Graph(streamed=True)
    e = Emitter(graph, weights)
    hidden = graph.input("hidden", np.float32, ("rows", config.width))
    arguments = {name: graph.input(name, *declared(name)) for name in names}
    past, memory = (), None
    cached = side == "decoder" or (is_decoder(model) and has_cache(config))
    own = cache_names(config) if cached else ()
    if own:
        past = tuple(graph.input(f"past.{name}", *cache(config, name)) for name in own)
    if side == "decoder":
        memory = KeyValue(*(
            graph.input(f"memory.{name}", np.float32, ("memories", config.heads, "source", "width"))
            for name in ("key", "value")
        ))  # fmt: skip
    rotary = RotaryTables(arguments["cos"], arguments["sin"]) if "cos" in arguments else None
    inputs = BlockInputs(
        bias=arguments.get("bias", ""), memory_bias=arguments.get("memory_bias", ""),
        lengths=arguments.get("lengths", ""), rotary=rotary, layout=Layout(lead(graph)), past=past,
        memory=memory,
    )  # fmt: skip
    emitters = seq2seq.BLOCKS if side else block_emitters(model)
    out = emitters[type(module)](e, module.config, params, hidden, inputs)
    hidden, present = out if isinstance(out, tuple) else (out, ())
    graph.output("new_hidden", hidden, np.float32, ("rows_out", config.width))
    for name, value in zip(own, present if own else (), strict=True):
        dtype, shape = cache(config, name)
        graph.output(f"present.{name}", value, dtype, tuple(f"new_{each}" for each in shape))
    return graph


def cache(config: Config, name: str) -> tuple[Any, tuple[int | str, ...]]:
    """Type and shape of a block's cache."""
    if name.endswith(("hidden", "cell")):
        return np.float32, ("cached_rows", "cached_width")
    return np.float32, ("cached_rows", "cached_heads", "cached_columns", "cached_width")


def lead(graph: Graph) -> str:
    """The rows and columns of the batch: int64 [2]."""
    return graph.input("lead", np.int64, (2,))


def memory_of(config: Config, module: Any, params: Layer, weights: Weights) -> Graph:
    """What a decoder block makes of the encoder's states: `hidden`, `lead` -> `key`, `value`."""
    graph = Graph(streamed=True)
    e = Emitter(graph, weights)
    hidden = graph.input("hidden", np.float32, ("rows", config.width))
    made = seq2seq.memory_of(e, module.config, params, hidden, Layout(lead(graph)))
    shape = ("batch", config.heads, "source", config.key_width)
    graph.output("key", made.key, np.float32, shape)
    graph.output("value", made.value, np.float32, shape)
    return graph


def head(config: Config, module: Any, params: Layer, weights: Weights, *, reads: str) -> Graph:
    """A head: `hidden`, `lead`, `attention_mask` [B, L] -> logits.

    Of one that predicts tokens `hidden` [rows, D] -> `states` [rows, E], which the runner
    multiplies with the vocabulary.

    Args:
      reads: "first" or "mean", as `config.head_reads`.
    """
    graph, tokens = Graph(), type(module) in STATES
    e = Emitter(graph, weights)
    flat = graph.input("hidden", np.float32, ("rows", config.width))
    if tokens:
        states = STATES[type(module)](e, config, params, flat)
        graph.output("states", states, np.float32, ("rows_out", "embedding"))
        return graph
    hidden = Layout(lead(graph)).by_position(graph, flat, config.width)
    counts = graph.input("attention_mask", np.int64, ROW)
    hidden, counts = read_by_head(e, reads, hidden, counts)
    logits = HEADS[type(module)](e, config, params, hidden, counts, np.empty(0))
    name, shape = output_of(config)
    graph.output(name, logits, np.float32, shape)
    return graph


def final_norm(config: Config, params: Layer, weights: Weights) -> Graph:
    """The norm behind an encoder-decoder's encoder: `hidden` [rows, D] -> `states`."""
    graph = Graph()
    e = Emitter(graph, weights)
    hidden = graph.input("hidden", np.float32, ("rows", config.width))
    normed = e.rms_norm("norm", params, hidden, config.norm_epsilon)
    graph.output("states", normed, np.float32, ("rows_out", config.width))
    return graph
