"""Qwen3 (Qwen team, 2025): Llama whose queries and keys are normalised head by head."""

import dataclasses
from typing import ClassVar

from jaxkd.models import decoder


@dataclasses.dataclass
class Config(decoder.Config):
    """A Qwen3's shape. The defaults are Qwen3-0.6B."""

    vocabulary: int = 151936
    layers: int = 28
    width: int = 1024
    heads: int = 16
    kv_heads: int = 8
    head_width: int = 128
    feed_forward: int = 3072
    activation: str = "silu"
    max_length: int = 40960
    norm_epsilon: float = 1e-6
    rope_theta: float = 1e6
    tied: bool = True

    family: ClassVar[str] = "qwen3"
    query_norm: ClassVar[bool] = True
