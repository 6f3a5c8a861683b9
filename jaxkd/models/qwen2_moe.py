"""Qwen2-MoE (Qwen team, 2024): Qwen2 with a choice of experts beside a shared one."""

import dataclasses
from typing import ClassVar

from jaxkd.models import decoder


@dataclasses.dataclass
class Config(decoder.Config):
    """A Qwen2-MoE's shape. The defaults are Qwen1.5-MoE-A2.7B."""

    vocabulary: int = 151936
    layers: int = 24
    width: int = 2048
    heads: int = 16
    kv_heads: int = 16
    feed_forward: int = 5632
    activation: str = "silu"
    max_length: int = 8192
    norm_epsilon: float = 1e-6
    rope_theta: float = 1e6
    attention_bias: bool = True
    experts: int = 60

    family: ClassVar[str] = "qwen2_moe"
    one_list: ClassVar[bool] = False  # a block has several feed-forwards
