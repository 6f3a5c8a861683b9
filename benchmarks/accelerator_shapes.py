"""Shapes that accelerator.py times, with what their programs need at least."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model and what it is fed."""

    family: str = "llama"
    layers: int = 16
    width: int = 2048
    heads: int = 32
    kv_heads: int = 8
    feed_forward: int = 8192
    vocabulary: int = 128256
    rows: int = 32
    length: int = 1024
    written: int = 0  # tokens to be generated
    chunk: int = 4096  # positions whose logits exist at once

    @property
    def products(self) -> int:
        """Parameters that a position is multiplied with, without the head's matrix."""
        k = self.width // self.heads
        attention = self.width * k * (2 * self.heads + 2 * self.kv_heads)
        matrices = 3 if self.family == "llama" else 2
        return self.layers * (attention + matrices * self.width * self.feed_forward)

    def step_flops(self) -> float:
        """Of teacher forward, student forward and backward; a multiplication and addition are 2."""
        positions, head = self.rows * self.length, self.width * self.vocabulary
        heads = positions * head if self.family == "llama" else self.rows * self.targets * head
        attention = 2 * self.layers * self.rows * self.length**2 * self.width
        causal = 2 if self.family == "llama" else 1
        return 4 * 2 * (positions * self.products + heads + attention / causal)

    @property
    def targets(self) -> int:
        """Masked positions of a row."""
        return max(1, round(0.15 * self.length))

    def decode_bytes(self) -> float:
        """Least that all steps read: the weights, and keys and values of all beams, in bfloat16."""
        weights = self.products + self.width * self.vocabulary
        cached = 2 * self.layers * self.kv_heads * (self.width // self.heads) * self.rows * 4
        return 2 * self.written * (weights + cached * (self.length + self.written / 2))


BERT = dict(family="bert", width=768, heads=12, kv_heads=12, feed_forward=3072, vocabulary=30522)
SHAPES = {
    "llama-1b": Shape(),
    "bert-base": Shape(**BERT, layers=12, rows=256, length=128),
    "llama-1b-decode": Shape(rows=100, length=256, written=256),
}
TOY = dict(layers=2, width=32, heads=4, feed_forward=64, vocabulary=512, rows=4, length=32)


def shape_of(name: str, toy: bool) -> Shape:
    """The shape, or a toy of the same family."""
    shape = SHAPES[name]
    if not toy:
        return shape
    fewer = min(shape.kv_heads, 2 if shape.family == "llama" else 4)
    return dataclasses.replace(shape, **TOY, kv_heads=fewer, chunk=16, written=shape.written // 32)


def attention_flops() -> float:
    """Forward, and backward, which computes the scores again."""
    rows, length, heads, k = 8, 4096, 16, 64
    return 3.5 * 4 * rows * heads * length**2 * k
