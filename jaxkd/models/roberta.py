"""RoBERTa (Liu et al., 2019): BERT whose first rows of the position embedding hold no position."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from jaxkd.models import bert


@dataclasses.dataclass
class Config(bert.Config):
    """A RoBERTa's shape. The defaults are roberta-base."""

    vocabulary: int = 50265
    max_length: int = 514  # rows of the position embedding, `position_offset` of them unused
    segments: int = 1
    norm_epsilon: float = 1e-5
    pad: int = 1
    # transformers derives it, padding id + 1; here the padding id may change (a trimmed
    # vocabulary) and positions stay.
    position_offset: int = 2

    family: ClassVar[str] = "roberta"
    head_activation: ClassVar[str] = "gelu"
    dropout_before_pool: ClassVar[bool] = True

    def for_hub(self, params: Any) -> tuple["Config", Any]:
        """The same model with `position_offset` at padding id + 1, where transformers has it.

        Rows before the first position are added or cut; nothing reads them but padding.
        """
        config, params = super().for_hub(params)
        shift = self.pad + 1 - self.position_offset
        if not shift:
            return config, params
        table = np.asarray(params["embed"]["position"])
        unused = np.repeat(table[:1], max(shift, 0), axis=0)
        table = np.concatenate([unused, table[max(-shift, 0) :]])
        moved = dataclasses.replace(
            config, position_offset=self.pad + 1, max_length=self.max_length + shift
        )
        return moved, params | {"embed": params["embed"] | {"position": table}}

    def check(self) -> None:
        super().check()
        if not 1 <= self.position_offset < self.max_length:
            raise ValueError(
                f"roberta: position_offset is {self.position_offset}; it is at least 1 and below "
                f"max_length, {self.max_length}."
            )
