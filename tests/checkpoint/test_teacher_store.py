"""What was written is read back, for the very tokens it belongs to."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from jaxkd.checkpoint import teacher_store as store
from jaxkd.checkpoint.teacher_store import Field, Store
from jaxkd.core.batch import Batch

MADE = {"teacher": "a", "data": "b"}


def batch(first, rows=5):
    tokens = np.arange(first, first + rows)[:, None] * 7 + np.arange(6)
    mask = np.ones((rows, 6), bool)
    return Batch(tokens.astype(np.int32), mask)


def write(folder, fields, arrays, shard=4, total=10):
    """`total` examples, arrays of example i being row i."""
    whole = store.hashes(batch(0, total))
    for number in range(-(-total // shard)):
        rows = range(number * shard, min(total, (number + 1) * shard))
        made = ((whole[i], {name: array[i] for name, array in arrays.items()}) for i in rows)
        store.write_shard(folder, number, fields, made)
    store.write_header(folder, fields, MADE, examples=total, shards=-(-total // shard))


@pytest.fixture
def folder(tmp_path):
    ids = np.random.default_rng(0).integers(70000, size=(10, 3, 2))
    write(tmp_path, {"ids": store.ids_of(70000, 3, 2)}, {"ids": ids})
    return tmp_path, ids


@pytest.mark.parametrize(
    "field, draw",
    [
        (store.ids_of(60000, 3, 2), lambda rng, s: rng.integers(60000, size=s)),
        (store.ids_of(2**24, 3, 2), lambda rng, s: rng.integers(2**24, size=s)),
        (Field((4,), "float16"), lambda rng, s: rng.normal(size=s).astype(np.float16)),
        (Field((4,), "bfloat16"), lambda rng, s: rng.normal(size=s).astype(ml_dtypes.bfloat16)),
        (Field((2,), "float32"), lambda rng, s: rng.normal(size=s).astype(np.float32)),
    ],
)
def test_numbers_come_back_in_any_order(tmp_path, field, draw):
    array = draw(np.random.default_rng(0), (10, *field.shape))
    write(tmp_path, {"it": field}, {"it": array})
    actual = Store(tmp_path, MADE)
    assert actual.bytes_an_example == store.HASH + field.size
    order = [7, 8, 0, 3]
    token_mask = batch(0, 10)
    picked = Batch(token_mask.tokens[order], token_mask.mask[order])
    np.testing.assert_array_equal(actual.read(order, picked)["it"], array[order])


def test_twelve_draws_take_at_most_40_bytes():
    assert store.ids_of(151_936, 12).size <= 40 and store.ids_of(30_522, 12).size == 24


def test_targets_of_other_tokens_are_refused(folder):
    actual = Store(folder[0], MADE)
    with pytest.raises(ValueError, match="row 2: the targets in .* belong to other tokens"):
        actual.read([2], batch(3, 1))
    masked = dataclasses.replace(
        batch(2, 1), target_positions=np.ones((1, 1), int), target_mask=np.ones((1, 1), bool)
    )
    with pytest.raises(ValueError, match="row 2"):  # other words are hidden
        actual.read([2], masked)


def test_padding_behind_does_not_matter(folder):
    token_mask = batch(2, 1)
    longer = Batch(
        np.pad(token_mask.tokens, [(0, 0), (0, 3)]), np.pad(token_mask.mask, [(0, 0), (0, 3)])
    )
    np.testing.assert_array_equal(Store(folder[0], MADE).read([2], longer)["ids"], folder[1][2:3])


def test_a_store_of_something_else_is_refused(folder):
    with pytest.raises(ValueError, match="teacher: 'a' there, 'c' here"):
        Store(folder[0], MADE | {"teacher": "c"})


def test_what_is_not_whole_is_no_store(folder):
    store.shard_file(folder[0], 1).unlink()
    with pytest.raises(FileNotFoundError, match="lacks targets-00001.arrayrecord"):
        Store(folder[0], MADE)
    (folder[0] / store.HEADER).unlink()
    with pytest.raises(FileNotFoundError, match="no finished store"):
        Store(folder[0], MADE)


def test_a_shard_that_was_cut_off_leaves_nothing(tmp_path):
    def broken():
        yield b"12345678", {"it": np.zeros(2, np.float32)}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write_shard(tmp_path, 0, {"it": Field((2,), "float32")}, broken())
    assert not list(tmp_path.iterdir())
