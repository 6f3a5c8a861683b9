"""DistilBERT (Sanh et al., 2019): BERT without segments and without a pooler."""

import dataclasses
from typing import ClassVar

from jaxkd.models import bert


@dataclasses.dataclass
class Config(bert.Config):
    """A DistilBERT's shape. The defaults are distilbert-base-uncased."""

    layers: int = 6
    segments: int = 0
    classifier_dropout: float = 0.2

    family: ClassVar[str] = "distilbert"
    pooled: ClassVar[bool] = False
    pool_activation: ClassVar[str] = "relu"
    dropout_after: ClassVar[tuple[str, ...]] = ("feed_forward",)
