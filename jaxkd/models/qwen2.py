"""Qwen2 and Qwen2.5 (Qwen team, 2024): Llama with biases in queries, keys and values."""

import dataclasses
from typing import ClassVar

from jaxkd.models import decoder


@dataclasses.dataclass
class Config(decoder.Config):
    """A Qwen2's shape. The defaults are Qwen2.5-0.5B."""

    vocabulary: int = 151936
    layers: int = 24
    width: int = 896
    heads: int = 14
    kv_heads: int = 2
    feed_forward: int = 4864
    activation: str = "silu"
    max_length: int = 32768
    norm_epsilon: float = 1e-6
    rope_theta: float = 1e6
    tied: bool = True
    attention_bias: bool = True

    family: ClassVar[str] = "qwen2"
