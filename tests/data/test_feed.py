"""Packing and feeding: every token once, and batch k the same whenever it is made."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxkd.core.batch import Batch
from jaxkd.data.rows.feed import Evaluation, Training, permutation
from jaxkd.data.rows.masking import Masking, Vocabulary, mask_rows
from jaxkd.data.rows.packing import pack

ROWS = pack([np.arange(4, 40)] * 9, length=12, cls=1, sep=2, pad=0)
VOCABULARY = Vocabulary.of(np.bincount(ROWS.ravel(), minlength=44), special=range(4), mask=3, pad=0)


def masked(rows, rng):
    return mask_rows(rows, Masking(), VOCABULARY, rng)


def training(seed=0, batch_size=4):
    return Training(ROWS, masked, seed=seed, batch_size=batch_size)


def same(one, two) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, one, two))


@given(st.lists(st.lists(st.integers(4, 99), max_size=30), max_size=6), st.integers(3, 12))
def test_packing_keeps_every_token_once_in_order_and_mixes_no_documents(documents, length):
    rows = pack([np.array(d, np.int32) for d in documents], length=length, cls=1, sep=2, pad=0)
    assert rows.shape == (sum(-(-len(d) // (length - 2)) for d in documents), length)
    assert (rows[:, 0] == 1).all() and ((rows == 2).sum(1) == 1).all()
    assert [t for row in rows for t in row if t > 3] == [t for d in documents for t in d]
    at = 0
    for document in documents:
        count = -(-len(document) // (length - 2))
        assert [t for row in rows[at : at + count] for t in row if t > 3] == document
        at += count


def test_rows_too_short_for_a_token_are_an_error():
    with pytest.raises(ValueError, match="data.length is 2"):
        pack([np.arange(3)], length=2, cls=1, sep=2, pad=0)


def test_step_k_of_a_seed_always_sees_the_same_batch():
    ordered = [training()[step] for step in range(12)]
    for start in (0, 5, 11):  # 9 batches are an epoch: the last start lies in the second
        iterator = training().start(start)
        for step in range(start, 12):
            assert same(next(iterator), ordered[step])
    assert not same(training(seed=1)[0], ordered[0])


def test_the_iterator_says_where_it_stands():
    iterator = training().start(7)
    next(iterator)
    position = iterator.get_state()
    resumed = training().start(0)
    resumed.set_state(position)
    assert same(next(resumed), training()[8])


def test_an_epoch_has_every_row_once_and_the_next_in_another_order():
    def originals(steps):
        rows = []
        for step in steps:
            batch = training(batch_size=6)[step]
            tokens = batch.tokens.copy()
            np.put_along_axis(tokens, batch.target_positions, batch.targets, axis=1)
            rows += [tuple(row) for row in tokens]
        return rows

    first, second = originals(range(6)), originals(range(6, 12))  # 36 rows
    expected = sorted(map(tuple, ROWS))
    assert sorted(first) == sorted(second) == expected
    assert first != second


def test_evaluation_counts_every_row_once_and_always_alike():
    feed = Evaluation(ROWS, np.arange(len(ROWS)), masked, VOCABULARY.pad, 5)
    batches = list(feed)
    assert len(batches) == len(feed) == 8 and {b.rows for b in batches} == {5}
    seen = np.concatenate([b.tokens for b in batches])[: len(ROWS)]
    at = np.concatenate([b.target_positions for b in batches])[: len(ROWS)]
    targets = np.concatenate([b.targets for b in batches])[: len(ROWS)]
    np.put_along_axis(seen, at, targets, axis=1)
    np.testing.assert_array_equal(seen, ROWS)
    assert (
        not batches[-1].target_mask[1:].any() and batches[-1].target_mask[0].any()
    )  # 36 = 7 x 5 + 1
    assert all(same(one, two) for one, two in zip(batches, feed, strict=True))


def test_an_empty_split_is_an_error():
    with pytest.raises(ValueError, match="no rows"):
        Training(ROWS[:0], masked, seed=0, batch_size=4)


def test_batches_of_like_length_are_the_same_whenever_asked_for_and_have_every_row():
    lengths = np.array([3, 9] * 20)
    rows = np.repeat(np.arange(40, dtype=np.int32)[:, None], 4, 1)
    feed = Training(rows, masked_not, seed=0, batch_size=4, lengths=lengths)
    steps = [feed[step] for step in range(20)]  # two epochs of 10
    for epoch in (steps[:10], steps[10:]):
        seen = np.concatenate([batch.tokens[:, 0] for batch in epoch])
        assert sorted(seen) == list(range(40))
    assert all(len(set(lengths[batch.tokens[:, 0]])) == 1 for batch in steps)
    assert not same(steps[0], steps[10])
    for start in (0, 7, 13):
        iterator = feed.start(start)
        for step in range(start, 20):
            assert same(next(iterator), steps[step])


def masked_not(rows, rng):
    return Batch(rows, rows > 0)


@given(st.integers(0, 2**31), st.integers(0, 50), st.integers(1, 300))
def test_an_epoch_is_a_permutation_that_only_seed_and_epoch_decide(seed, epoch, rows):
    order = permutation(seed, epoch, rows)
    assert sorted(order) == list(range(rows))
    np.testing.assert_array_equal(order, permutation(seed, epoch, rows))


def test_no_two_seeds_share_an_epoch():
    """Orders of 64 rows collide by chance with probability 1/64!."""
    orders = {
        tuple(permutation(seed, epoch, 64)): (seed, epoch)
        for seed in range(12)
        for epoch in range(12)
    }
    assert len(orders) == 144


@pytest.mark.parametrize("lengths", [None, np.array([3, 9, 5, 7] * 8)])
@given(seed=st.integers(0, 1000), other=st.integers(0, 1000))
def test_neighbouring_seeds_train_on_no_common_epoch(lengths, seed, other):
    """Grain's own shuffle gives epoch e of seed s and epoch e - 1 of seed s + 1 one order."""
    rows = np.repeat(np.arange(32, dtype=np.int32)[:, None], 2, 1)

    def epochs(seed):
        feed = Training(rows, masked_not, seed=seed, batch_size=8, lengths=lengths)
        steps = [tuple(feed[step].tokens[:, 0]) for step in range(12)]
        return {tuple(steps[i : i + 4]) for i in (0, 4, 8)}

    assert len(epochs(seed)) == 3
    assert seed == other or not epochs(seed) & epochs(other)
