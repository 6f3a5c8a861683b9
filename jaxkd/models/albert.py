"""ALBERT (Lan et al., 2019): one block for all layers, and a narrow token embedding."""

import dataclasses
from typing import ClassVar

from jaxkd.models import bert


@dataclasses.dataclass
class Config(bert.Config):
    """An ALBERT's shape. The defaults are albert-base-v2."""

    vocabulary: int = 30000
    activation: str = "gelu_new"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    embedding_width: int = 128

    family: ClassVar[str] = "albert"
    dropout_after: ClassVar[tuple[str, ...]] = ("attention",)
    factorised: ClassVar[bool] = True
    shared_blocks: ClassVar[bool] = True

    @property
    def embedding(self) -> int:
        return self.embedding_width
