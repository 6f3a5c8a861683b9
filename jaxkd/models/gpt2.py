"""GPT-2 (Radford et al., 2019) and DistilGPT2: learned positions, LayerNorm, biases everywhere."""

import dataclasses
from typing import ClassVar

from jaxkd.models import decoder


@dataclasses.dataclass
class Config(decoder.Config):
    """A GPT-2's shape. The defaults are gpt2."""

    vocabulary: int = 50257
    activation: str = "gelu_new"
    max_length: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm_epsilon: float = 1e-5
    tied: bool = True
    attention_bias: bool = True
    output_bias: bool = True
    feed_forward_bias: bool = True

    family: ClassVar[str] = "gpt2"
    gated: ClassVar[bool] = False
    rotary: ClassVar[bool] = False
    rms_norm: ClassVar[bool] = False
