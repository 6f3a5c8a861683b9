"""RoBERTa (Liu et al., 2019): BERT whose positions count from the padding id."""

import dataclasses
from typing import ClassVar

from jaxkd.models import bert


@dataclasses.dataclass
class Config(bert.Config):
    """A RoBERTa's shape. The defaults are roberta-base."""

    vocabulary: int = 50265
    max_length: int = 514  # rows of the position embedding, of which pad + 1 hold no position
    segments: int = 1
    norm_epsilon: float = 1e-5
    pad: int = 1

    head_activation: ClassVar[str] = "gelu"
    dropout_before_pool: ClassVar[bool] = True
    positions_follow_padding: ClassVar[bool] = True
