"""Masked language modelling: which tokens are hidden, and what the model sees in their place."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxkd.core.batch import Batch
from jaxkd.data.tokenizers.tokenizer import Tokenizer


@dataclasses.dataclass
class Masking:
    """15% of the tokens: 80% become [MASK], 10% a random token, 10% stay (Devlin et al., 2018).

    With `smoothing` s a token seen c times in the training split is chosen with weight c^-s, so
    rare words are targets more often (Sanh et al., 2019: 0.7). With 0 all tokens are alike.
    [CLS], [SEP] and padding are never chosen.
    """

    share: float = 0.15
    smoothing: float = 0.7
    mask: float = 0.8  # of the chosen: shown as [MASK]
    random: float = 0.1  # of the chosen: shown as a random token; the rest stays
    fixed: bool = False  # a row is masked alike in every epoch, so that a teacher can be stored

    def check(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"masking.share is {self.share}; it lies between 0 and 1.")
        if min(self.mask, self.random) < 0 or self.mask + self.random > 1:
            raise ValueError(
                f"masking.mask {self.mask} and masking.random {self.random} are shares of the "
                "chosen tokens: each at least 0, together at most 1."
            )

    def targets(self, length: int) -> int:
        """K, the static number of target positions of a row of `length` tokens."""
        return max(1, round(self.share * (length - 2)))


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What masking must know of the tokenizer and of the training split."""

    counts: Int[np.ndarray, " V"]  # of each token in the training split
    special: Bool[np.ndarray, " V"]  # never hidden, never shown as a random token
    ordinary: Int[np.ndarray, " ordinary"]  # ids of the others
    mask: int
    pad: int

    @classmethod
    def of_words(cls, counts: Int[np.ndarray, " V"], tokenizer: Tokenizer) -> "Vocabulary":
        """Of a tokenizer whose structural tokens ([CLS], padding ..) are not counted."""
        structural = sorted(tokenizer.structural_ids)
        counts = counts.copy()
        counts[structural] = 0
        return cls.of(counts, special=structural, mask=tokenizer.mask, pad=tokenizer.pad)

    @classmethod
    def of(
        cls, counts: Int[np.ndarray, " V"], *, special: Iterable[int], mask: int, pad: int
    ) -> "Vocabulary":
        table = np.zeros(len(counts), bool)
        table[list(special)] = True
        return cls(counts, table, np.flatnonzero(~table).astype(np.int32), mask, pad)


def mask_rows(
    rows: Int[np.ndarray, "B L"],
    masking: Masking,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
) -> Batch:
    """A batch of these rows, its targets drawn from `rng`.

    Choosing the K largest of log-weight + Gumbel noise is drawing K without replacement in
    proportion to the weights (Efraimidis and Spirakis, 2006).
    """
    slots = masking.targets(rows.shape[1])
    allowed = ~vocabulary.special[rows]
    n = allowed.sum(1)
    chosen = np.minimum(np.minimum(slots, np.maximum(1, np.round(masking.share * n))), n)
    weight = -masking.smoothing * np.log(np.maximum(vocabulary.counts[rows], 1))
    weight = np.where(allowed, weight + rng.gumbel(size=rows.shape), -np.inf)
    positions = np.argsort(-weight, axis=1, kind="stable")[:, :slots].astype(np.int32)
    counted = np.arange(slots) < chosen[:, None]
    targets = np.take_along_axis(rows, positions, 1)
    fate = rng.random(positions.shape)
    visible = np.where(fate < masking.mask, vocabulary.mask, targets)
    replaced = (fate >= masking.mask) & (fate < masking.mask + masking.random)
    visible = np.where(replaced, rng.choice(vocabulary.ordinary, positions.shape), visible)
    tokens = rows.copy()
    np.put_along_axis(tokens, positions, np.where(counted, visible, targets), 1)
    return Batch(
        tokens=tokens,
        mask=rows != vocabulary.pad,
        targets=targets,
        target_positions=positions,
        target_mask=counted,
    )


def unigram_nats(
    tokens: Int[np.ndarray, "..."], counts: Int[np.ndarray, " V"]
) -> Float[np.ndarray, "..."]:
    """-log of each token's share in the training split, add-one smoothed; what a model that
    ignores all context would pay.

    >>> unigram_nats(np.array([0]), np.array([1, 1])).round(4)
    array([0.6931])
    """
    share = (counts + 1.0) / (counts + 1.0).sum()
    return -np.log(share)[tokens]
