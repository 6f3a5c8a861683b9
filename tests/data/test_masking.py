"""Masking: how many, which, and what stands in their place."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxkd.core.random import numpy_stream
from jaxkd.data.rows.masking import Masking, Vocabulary, mask_rows, unigram_nats

SPECIAL = (0, 1, 2, 3)  # pad, cls, sep, mask
COUNTS = np.array([0, 0, 0, 0] + [1000, 100, 10, 1] * 10)
VOCABULARY = Vocabulary.of(COUNTS, special=SPECIAL, mask=3, pad=0)
ROW = np.concatenate([[1], np.arange(4, 44), [2]]).astype(np.int32)  # every ordinary token once


def drawn(masking, draws, row=ROW):
    """The rows of one batch of `draws` equal rows, each as a batch without its leading axis."""
    batch = mask_rows(np.tile(row, (draws, 1)), masking, VOCABULARY, numpy_stream(0, "test", 0))
    return [jax.tree.map(lambda x, i=i: x[i], batch) for i in range(draws)]


def test_the_share_of_a_row_is_masked_and_never_a_special_token():
    for batch in drawn(Masking(), 50):
        assert batch.target_mask.sum() == 6 == Masking().targets(42)  # 15% of 40
        assert not np.isin(batch.targets[batch.target_mask], SPECIAL).any()
        assert len(set(batch.target_positions)) == len(batch.target_positions)
        np.testing.assert_array_equal(ROW[batch.target_positions], batch.targets)


def test_only_target_positions_are_changed():
    for batch in drawn(Masking(), 50):
        changed = np.flatnonzero(batch.tokens != ROW)
        assert set(changed) <= set(batch.target_positions[batch.target_mask])


def test_a_short_row_has_fewer_targets_and_its_padding_none():
    row = np.array([1, 4, 5, 2] + [0] * 38, np.int32)
    for batch in drawn(Masking(), 20, row):
        assert batch.target_mask.sum() == 1
        assert batch.target_positions[batch.target_mask][0] in (1, 2)
        assert batch.mask.sum() == 4
        np.testing.assert_array_equal(batch.tokens[4:], 0)
    empty = np.array([1, 2] + [0] * 40, np.int32)
    assert drawn(Masking(), 1, empty)[0].target_mask.sum() == 0


def test_eighty_percent_are_masked_ten_replaced_ten_kept():
    fates = {"mask": 0, "kept": 0, "random": 0}
    replaced_by = []
    for batch in drawn(Masking(smoothing=0.0), 3000):
        token_mask = batch.tokens[batch.target_positions][batch.target_mask]
        for token, target in zip(token_mask, batch.targets[batch.target_mask], strict=True):
            kind = "mask" if token == 3 else "kept" if token == target else "random"
            fates[kind] += 1
            replaced_by += [token] if kind == "random" else []
    # A random token equals the target in one of 40 cases, which then counts as kept.
    n = sum(fates.values())
    expected = np.array([0.8, 0.1 + 0.1 / 40, 0.1 * 39 / 40]) * n
    assert stats.chisquare(list(fates.values()), expected).pvalue > 1e-3
    assert set(replaced_by) == set(range(4, 44))  # any ordinary token, no special one


@pytest.mark.parametrize("smoothing", [0.0, 0.7])
def test_tokens_are_chosen_in_proportion_to_their_count_to_the_minus_smoothing(smoothing):
    masking = Masking(share=0.01, smoothing=smoothing)  # one of 40: a plain categorical draw
    assert masking.targets(42) == 1
    picked = np.bincount([int(b.targets[0]) for b in drawn(masking, 8000)], minlength=44)[4:]
    weight = COUNTS[4:].astype(float) ** -smoothing
    actual = picked.reshape(10, 4).sum(0)  # by frequency class
    reference = 8000 * weight.reshape(10, 4).sum(0) / weight.sum()
    assert stats.chisquare(actual, reference).pvalue > 1e-3


def test_the_same_step_is_masked_the_same_and_another_differently():
    rows = np.tile(ROW, (2, 1))
    one, again, other = (
        mask_rows(rows, Masking(), VOCABULARY, numpy_stream(0, "test", step)) for step in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert (one.target_positions != other.target_positions).any()
    assert (one.target_positions[0] != one.target_positions[1]).any()


def test_settings_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="masking.share is 1.5"):
        Masking(share=1.5).check()
    with pytest.raises(ValueError, match="together at most 1"):
        Masking(mask=0.8, random=0.3).check()


def test_unigram_nats_are_the_cross_entropy_of_add_one_counts():
    # Counts 3 and 1, add-one: shares 4/6 and 2/6.
    np.testing.assert_allclose(
        unigram_nats(np.array([0, 1, 1]), np.array([3, 1])), -np.log([4 / 6, 2 / 6, 2 / 6])
    )
