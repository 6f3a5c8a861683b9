"""BART (Lewis et al., 2019): learned positions, and a norm after the embedding."""

import dataclasses
from typing import ClassVar

from jaxkd.models import seq2seq


@dataclasses.dataclass
class Config(seq2seq.Config):
    """A BART's shape. The defaults are bart-base."""

    vocabulary: int = 50265
    max_length: int = 1024
    pad: int = 1
    start: int = 2
    end: int = 2

    family: ClassVar[str] = "bart"
    position_offset: ClassVar[int] = 2
    embedding_norm: ClassVar[bool] = True
