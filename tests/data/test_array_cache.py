"""Rows on disk: the same again, made anew where they are damaged, and read only once unchanged."""

import json
import os

import numpy as np
import pytest

from jaxkd.data.rows.array_cache import META, cached_arrays
from jaxkd.data.rows.text import CausalText
from jaxkd.data.sources import records
from jaxkd.data.sources.digests import file_digest

BLOCKS = [np.arange(12).reshape(4, 3), np.arange(12, 18).reshape(2, 3)]


def made(tmp_path, calls=None, **more):
    def make():
        if calls is not None:
            calls.append(1)
        return {"train": iter(BLOCKS), "test": iter(())}

    return cached_arrays(tmp_path, "f", 3, make, **more)


def test_arrays_are_the_blocks_one_after_the_other_and_made_once(tmp_path):
    calls = []
    for _ in range(2):
        arrays = made(tmp_path, calls)
        np.testing.assert_array_equal(arrays["train"], np.concatenate(BLOCKS))
        assert arrays["test"].shape == (0, 3)
    assert calls == [1]


@pytest.mark.parametrize("damage", ["cut", "flip", "meta", "lost"])
def test_a_damaged_cache_is_made_anew_and_said(tmp_path, damage):
    made(tmp_path)
    file = tmp_path / "rows" / "f" / "train"
    raw = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(raw[:-5])
    elif damage == "flip":
        raw[7] ^= 1
        file.write_bytes(raw)
        os.utime(file, ns=(2**62, 2**62))
    elif damage == "meta":
        (file.parent / META).write_text("{")
    else:
        file.unlink()
    messages, calls = [], []
    arrays = made(tmp_path, calls, warn=messages.append)
    np.testing.assert_array_equal(arrays["train"], np.concatenate(BLOCKS))
    assert calls == [1] and "damaged" in messages[0]


def test_what_was_cut_off_while_it_was_made_is_not_used(tmp_path):
    def broken():
        def blocks():
            yield BLOCKS[0]
            raise RuntimeError("killed")

        return {"train": blocks()}

    with pytest.raises(RuntimeError):
        cached_arrays(tmp_path, "f", 3, broken)
    assert not (tmp_path / "rows" / "f").exists()
    np.testing.assert_array_equal(made(tmp_path)["train"], np.concatenate(BLOCKS))


def test_raw_files_are_not_read_again_while_they_are_unchanged(tmp_path, monkeypatch):
    file = tmp_path / "corpus.txt"
    file.write_text("".join(f"line {i}\n" for i in range(50)))
    text = CausalText(train=str(file), tokenizer="trained", trained_size=256, length=16)
    first = text.open(tmp_path / "cache")
    read = []
    chunks = records.chunks
    monkeypatch.setattr(records, "chunks", lambda f: (read.append(f), chunks(f))[1])
    monkeypatch.setattr("jaxkd.data.sources.digests.chunks", lambda f: pytest.fail(f"{f} is read"))
    again = text.open(tmp_path / "cache")
    assert again.fingerprint == first.fingerprint and not read
    monkeypatch.undo()
    file.write_text("".join(f"line {i}\n" for i in range(1, 51)))
    assert text.open(tmp_path / "cache").fingerprint != first.fingerprint


def test_a_digest_is_of_the_content_and_follows_changes(tmp_path):
    import gzip
    import hashlib

    plain, packed = tmp_path / "a", tmp_path / "a.gz"
    plain.write_bytes(b"content")
    packed.write_bytes(gzip.compress(b"content"))
    expected = hashlib.sha256(b"content").hexdigest()
    assert file_digest(plain, tmp_path) == file_digest(packed, tmp_path) == expected
    plain.write_bytes(b"other")
    assert file_digest(plain, tmp_path) == hashlib.sha256(b"other").hexdigest()
    kept = next((tmp_path / "digests").glob("*.json"))
    kept.write_text(json.dumps({"stamp": 1}))
    assert file_digest(packed, tmp_path) == expected
