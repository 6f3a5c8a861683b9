"""The input of one training or evaluation step: the `Batch` that all rooms pass on."""

import dataclasses
from typing import Any

import jax
import numpy as np

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


def check_batch(batch: Batch, *, tokens: int = 0, targets: int = 0) -> None:
    """Check that a batch can be learned: its targets, their mask, shapes, and ids in their range.

    Ids are compared where they are numpy arrays on the host; of traced or device arrays only the
    shapes are looked at, which costs a compiled step nothing.

    Args:
      tokens: rows of the token embedding; 0: not compared.
      targets: classes or tokens that can be predicted; 0: as `tokens`.
    Raises:
      ValueError: names the array and what is wrong with it.
    """
    for name in ("targets", "target_mask", "mask"):
        if getattr(batch, name) is None:
            raise ValueError(
                f"the batch has no {name}. A batch to learn or evaluate needs tokens, mask, "
                "targets and target_mask (True where a target counts)."
            )
    shapes = {name: np.shape(getattr(batch, name)) for name in ("targets", "target_mask")}
    if shapes["targets"] != shapes["target_mask"]:
        raise ValueError(
            f"targets have the shape {shapes['targets']} and target_mask {shapes['target_mask']}; "
            "they must be equal."
        )
    if np.shape(batch.tokens) != np.shape(batch.mask):
        raise ValueError(
            f"tokens have the shape {np.shape(batch.tokens)} and mask {np.shape(batch.mask)}; they "
            "must be equal."
        )
    _check_ids("tokens", batch.tokens, batch.mask, tokens, "False in mask for padding")
    if isinstance(batch.targets, np.ndarray) and np.issubdtype(batch.targets.dtype, np.floating):
        return  # numbers, of a regression
    _check_ids(
        "targets",
        batch.targets,
        batch.target_mask,
        targets or tokens,
        "False in target_mask for targets that do not count, such as -100",
    )


def _check_ids(name: str, ids: Any, mask: Any, size: int, advice: str) -> None:
    if not size or not isinstance(ids, np.ndarray) or not isinstance(mask, np.ndarray):
        return
    counted = np.where(mask, ids, 0)
    least, most = counted.min(initial=0), counted.max(initial=0)
    if least < 0 or most >= size:
        raise ValueError(
            f"{name} hold the id {least if least < 0 else most}; ids are 0 to {size - 1} here. "
            f"Set {advice}."
        )
