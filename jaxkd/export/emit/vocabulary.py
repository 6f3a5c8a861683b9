"""The product with the vocabulary, the last of heads that predict tokens."""

import dataclasses

import numpy as np

from jaxkd.export.emit.layers import Emitter, Layer

TOKENS = "embed/token"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """logits = states @ matrix.T + bias."""

    name: str  # of the matrix: that of the embedding where the two are tied
    matrix: np.ndarray  # [V, E]
    bias: np.ndarray | None  # [V]

    @classmethod
    def of(cls, head: Layer, tokens: np.ndarray) -> "Vocabulary":
        """Of a head's parameters, and the embedding [V, E]."""
        tied = "output" not in head
        name, matrix = (TOKENS, tokens) if tied else ("head/output", head["output"])
        bias = head.get("bias")
        return cls(name, matrix, None if bias is None else bias.reshape(-1))

    def logits(self, e: Emitter, states: str) -> str:
        """[..., E] -> [..., V]."""
        product = e.weights.tied(e.graph, self.name, self.matrix, states)
        if self.bias is None:
            return product
        return e.graph.add("Add", product, e.graph.weight("head/bias", self.bias))
