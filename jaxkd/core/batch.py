"""The input of one training or evaluation step: the `Batch` that all rooms pass on."""

import dataclasses
from typing import Any

import jax

BLANK = 0  # the CTC blank; padding in BERT's vocabularies


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Token sequences and, for masked language modelling, the positions to be predicted.

    An encoder-decoder encodes `tokens` and continues `decoder_tokens`.

    Each row has K positions to predict, a static number, so that the head is computed at these
    positions only; `target_mask` is False where a row has fewer. Masks: True = counts.
    """

    tokens: Any  # [B, L] int32, with [MASK] and random tokens already put in
    mask: Any  # [B, L] bool, False on padding
    targets: Any = None  # [B, K] int32, the tokens to be predicted
    target_positions: Any = None  # [B, K] int32, where they stand in the row
    target_mask: Any = None  # [B, K] bool, False where a row has fewer than K targets
    segments: Any = None  # [B, L] int32, sentence A or B; None means all A
    decoder_tokens: Any = None  # [B, T] int32, the decoder's input: targets shifted right
    decoder_mask: Any = None  # [B, T] bool, False on padding
    stored_targets: Any = None  # a teacher's stored outputs (stored_targets.py), [B, ...]

    @property
    def last_mask(self) -> Any:
        """The mask of the last hidden states: the decoder's, if there is a decoder."""
        return self.mask if self.decoder_mask is None else self.decoder_mask

    @property
    def rows(self) -> int:
        return self.tokens.shape[0]

    def split(self, parts: int) -> "Batch":
        """The same rows as [parts, B / parts, ...]; raises ValueError if B does not divide."""
        if self.rows % parts:
            raise ValueError(
                f"a batch of {self.rows} rows does not divide into {parts} equal parts. Choose "
                f"batch_size as a multiple of devices x accumulate."
            )
        return jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), self)
