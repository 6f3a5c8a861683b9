"""Attention as ONNX operators: windowed, causal, cached, across, with grouped keys and rotary."""

import dataclasses
from typing import Any

import numpy as np

from jaxkd.export.emit.graph import Graph
from jaxkd.export.emit.layers import Emitter, Layer, integers, number


@dataclasses.dataclass(frozen=True)
class Heads:
    """The heads of an attention."""

    count: int
    width: int  # of queries and keys
    groups: int  # of keys and values, each for count / groups queries
    scale: float  # of the scores
    norm_epsilon: float = 0.0  # of a norm of each query and key; 0: none

    @classmethod
    def of(cls, config: Any, *, scaled: bool = True, norm_epsilon: float = 0.0) -> "Heads":
        width = config.key_width
        groups = getattr(config, "kv_heads", 0) or config.heads
        scale = width**-0.5 if scaled else 1.0
        return cls(config.heads, width, groups, scale, norm_epsilon)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a graph lays out hidden states: [B, L, D], or [B L, D] where `lead` has B and L."""

    lead: str | None = None  # int64 [2]

    def by_position(self, graph: Graph, flat: str, width: int) -> str:
        """Hidden states of `width` -> [B, L, width]."""
        if self.lead is None:
            return flat
        shape = graph.once("Concat", self.lead, integers(width), axis=0)
        return graph.add("Reshape", flat, shape)

    def flat(self, graph: Graph, hidden: str, width: int) -> str:
        """[B, L, width] -> hidden states as the graph lays them out."""
        if self.lead is None:
            return hidden
        return graph.add("Reshape", hidden, integers(-1, width))

    def split_heads(self, graph: Graph, flat: str, count: int, width: int) -> str:
        """Hidden states of count x width -> [B, L, count, width]."""
        if self.lead is None:
            return graph.add("Reshape", flat, integers(0, 0, count, width))
        shape = graph.once("Concat", self.lead, integers(count, width), axis=0)
        return graph.add("Reshape", flat, shape)

    def merge_heads(self, graph: Graph, split: str, width: int) -> str:
        """[B, L, H, K] -> hidden states of `width`."""
        shape = integers(0, 0, width) if self.lead is None else integers(-1, width)
        return graph.add("Reshape", split, shape)


PLAIN = Layout()


@dataclasses.dataclass(frozen=True)
class KeyValue:
    """Keys and values, each [B, G, S, K]."""

    key: str
    value: str


@dataclasses.dataclass(frozen=True)
class RotaryTables:
    """Cosines and sines of rotary positions, each [B or 1, 1, L, K / 2]."""

    cos: str
    sin: str

    def rotate(self, graph: Graph, heads: str, width: int) -> str:
        """Dimension i turned with i + K / 2, as models/rotary.py does."""
        add, half = graph.add, integers(width // 2, width // 2)
        first, second = add("Split", heads, half, outputs=2, axis=-1)
        halves = [
            add(kind, add("Mul", one, self.cos), add("Mul", other, self.sin))
            for kind, one, other in (("Sub", first, second), ("Add", second, first))
        ]
        return add("Concat", *halves, axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockInputs:
    """What a block gets besides hidden states."""

    bias: str = ""  # added to the scores of its self-attention
    lengths: str = ""  # int32 [B]: tokens of each row, for a recurrent layer
    rotary: RotaryTables | None = None
    layout: Layout = PLAIN
    past: tuple[str, ...] = ()  # the block's cache of earlier positions
    memory: KeyValue | None = None  # of the encoder's states, in a block that attends to them
    memory_bias: str = ""


@dataclasses.dataclass(frozen=True)
class Attention:
    """The attention `name` of a block's parameters."""

    e: Emitter
    name: str
    params: Layer
    heads: Heads
    layout: Layout = PLAIN

    def __call__(self, hidden: str, bias: str, rotary: RotaryTables | None = None) -> str:
        """Self-attention; `bias` is added to the scores: [B or 1, 1 or H, 1 or L, S]."""
        heads, graph = self.heads, self.e.graph
        if rotary is not None or heads.groups != heads.count or heads.norm_epsilon:
            return self.cached(hidden, bias, None, rotary)[0]
        # Keys are transposed once, into the form of the product, as onnxruntime's fusion wants.
        query, key, value = self._project(hidden, ("query", "key", "value"))
        split = self.layout.split_heads(graph, key, heads.count, heads.width)
        columns = graph.add("Transpose", split, perm=[0, 2, 3, 1])
        context = self._average(self._by_head("query", query), columns,
                                self._by_head("value", value), bias)  # fmt: skip
        return self._output(context)

    def cached(
        self, hidden: str, bias: str, past: KeyValue | None, rotary: RotaryTables | None = None
    ) -> tuple[str, KeyValue]:
        """Self-attention to earlier positions too; also returns the keys and values of all."""
        query, key, value = self._project(hidden, ("query", "key", "value"))
        query, key = (
            self._by_head(which, flat, rotary) for which, flat in (("query", query), ("key", key))
        )
        value = self._by_head("value", value)
        if past is not None:
            key, value = (
                self.e.graph.add("Concat", old, new, axis=2)
                for old, new in ((past.key, key), (past.value, value))
            )
        present = KeyValue(key, value)
        return self._attend(query, present, bias), present

    def across(self, hidden: str, memory: KeyValue, bias: str) -> str:
        """Attention to what `memory` made of an encoder's states."""
        (query,) = self._project(hidden, ("query",))
        return self._attend(self._by_head("query", query), memory, bias)

    def memory(self, states: str) -> KeyValue:
        """Keys and values of an encoder's states, for `across`."""
        key, value = self._project(states, ("key", "value"))
        return KeyValue(self._by_head("key", key), self._by_head("value", value))

    def _project(self, hidden: str, names: tuple[str, ...]) -> list[str]:
        return self.e.dense_layers(
            tuple(f"{self.name}/{name}" for name in names), self.params, hidden
        )

    def _by_head(self, which: str, flat: str, rotary: RotaryTables | None = None) -> str:
        """Hidden states -> [B, H or G, L, K], normalised and turned."""
        graph, heads = self.e.graph, self.heads
        count = heads.count if which == "query" else heads.groups
        split = self.layout.split_heads(graph, flat, count, heads.width)
        split = graph.add("Transpose", split, perm=[0, 2, 1, 3])
        if heads.norm_epsilon and which != "value":
            name = f"{self.name}/{which}_norm"
            split = self.e.rms_norm(name, self.params, split, heads.norm_epsilon)
        return split if rotary is None else rotary.rotate(graph, split, heads.width)

    def _attend(self, query: str, memory: KeyValue, bias: str) -> str:
        add, heads = self.e.graph.add, self.heads
        columns = add("Transpose", memory.key, perm=[0, 1, 3, 2])
        if heads.groups == heads.count:
            return self._output(self._average(query, columns, memory.value, bias))
        # [B, G, H / G, L, K] by [B, G, 1, K, S]: queries of a group share its keys.
        each = heads.count // heads.groups
        query = add("Reshape", query, integers(0, heads.groups, each, -1, heads.width))
        columns, value = (add("Unsqueeze", x, integers(2)) for x in (columns, memory.value))
        bias = self.e.graph.once("Unsqueeze", bias, integers(2))
        context = self._average(query, columns, value, bias)
        return self._output(add("Reshape", context, integers(0, heads.count, -1, heads.width)))

    def _average(self, query: str, columns: str, value: str, bias: str) -> str:
        """The values, weighted by softmax(query @ columns * scale + bias)."""
        add = self.e.graph.add
        scores = add("MatMul", query, columns)
        if self.heads.scale != 1.0:
            scores = add("Div", scores, number(1.0 / self.heads.scale))
        return add("MatMul", add("Softmax", add("Add", scores, bias), axis=-1), value)

    def _output(self, context: str) -> str:
        by_position = self.e.graph.add("Transpose", context, perm=[0, 2, 1, 3])
        width = self.heads.count * self.heads.width
        flat = self.layout.merge_heads(self.e.graph, by_position, width)
        return self.e.dense(f"{self.name}/output", self.params, flat)


def band(e: Emitter, length: str, window: int) -> str:
    """1 where two of `length` positions (int64 scalar) are at most `window` apart: [1, L, L]."""
    add = e.graph.once
    positions = add("Range", np.array(0, np.int64), length, np.array(1, np.int64))
    apart = add("Abs", add("Sub", positions, add("Unsqueeze", positions, integers(1))))
    near = add("Less", apart, np.array(window + 1, np.int64))
    return add("Unsqueeze", add("Cast", near, to=7), integers(0))
