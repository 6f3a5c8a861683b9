"""Llama 2 and 3 (Touvron et al., 2023; Llama team, 2024)."""

import dataclasses
from typing import ClassVar

from jaxkd.models import decoder


@dataclasses.dataclass
class Config(decoder.Config):
    """A Llama's shape. The defaults are Llama-2-7b."""

    vocabulary: int = 32000
    layers: int = 32
    width: int = 4096
    heads: int = 32
    feed_forward: int = 11008
    activation: str = "silu"
    max_length: int = 4096
    norm_epsilon: float = 1e-6

    family: ClassVar[str] = "llama"
