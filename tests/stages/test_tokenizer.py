"""The vocabulary of a stage's tokenizer: read once, and again when its files are others."""

import json

import pytest

from jaxkd.stages import tokenizer

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog")


def write(stage, words):
    folder = stage / tokenizer.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")


@pytest.fixture
def opened(monkeypatch):
    """Folders that were opened, in order."""
    folders, open_folder = [], tokenizer.open_folder

    def counted(folder, masked):
        folders.append(folder.parent.name)
        return open_folder(folder, masked)

    monkeypatch.setattr(tokenizer, "open_folder", counted)
    monkeypatch.setattr(tokenizer, "_vocabularies", {})
    return folders


def test_equal_files_are_read_once_and_others_again(opened, tmp_path):
    for stage in ("teacher", "student"):
        write(tmp_path / stage, WORDS)
    first = tokenizer.vocabulary(tmp_path / "teacher")
    assert first == {word: number for number, word in enumerate(WORDS)}
    first["cat"] = 99  # a caller's copy
    assert tokenizer.vocabulary(tmp_path / "student")["cat"] == 5
    assert opened == ["teacher"]
    write(tmp_path / "student", (*WORDS[:5], "dog", "cat"))
    assert tokenizer.vocabulary(tmp_path / "student")["cat"] == 6
    (tmp_path / "student" / tokenizer.FOLDER / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": False})
    )
    assert tokenizer.vocabulary(tmp_path / "student")["cat"] == 6
    assert opened == ["teacher", "student", "student"]


def test_only_the_last_are_kept(opened, tmp_path):
    for number in range(tokenizer.KEPT + 2):
        write(tmp_path / str(number), (*WORDS, f"word{number}"))
        assert f"word{number}" in tokenizer.vocabulary(tmp_path / str(number))
    assert len(tokenizer._vocabularies) == tokenizer.KEPT
    assert tokenizer.vocabulary(tmp_path / "none") is None
