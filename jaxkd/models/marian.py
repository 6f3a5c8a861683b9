"""Marian (Junczys-Dowmunt et al., 2018): the Transformer of Vaswani et al. (2017) in OPUS-MT."""

import dataclasses
from typing import ClassVar

from jaxkd.models import seq2seq


@dataclasses.dataclass
class Config(seq2seq.Config):
    """A Marian's shape. The defaults are opus-mt-en-de."""

    vocabulary: int = 58101
    width: int = 512
    heads: int = 8
    feed_forward: int = 2048
    activation: str = "silu"
    pad: int = 58100
    scaled_embedding: bool = True
    start: int = 58100
    end: int = 0

    family: ClassVar[str] = "marian"
    positions: ClassVar[str] = "sinusoidal"
