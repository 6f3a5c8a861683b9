"""Instructions, commands, summaries and problems: what their files hold, and what they must."""

import gzip
import json
import os
import pathlib

import pyarrow
import pyarrow.parquet
import pytest

from jaxkd.data.corpora.pairs import CORPORA
from jaxkd.data.rows.pairs import Pairs
from jaxkd.data.sources import find as sources
from jaxkd.data.sources.find import find

DATA = pathlib.Path(os.environ.get("JAXKD_DATA", ""))


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    monkeypatch.delenv("JAXKD_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def open_pairs(corpus, folder="", *, languages=("en", "de"), origin="auto", cache):
    """The resolved data set, and the pairs of its splits."""
    actual = find(CORPORA[corpus](languages), folder, origin, cache)
    return actual, {split: list(rows) for split, rows in actual.splits.items()}


# As the folders' own READMEs count them; 5% of what is learned is held out, by a hash.
@pytest.mark.parametrize(
    "corpus, languages, known, test",
    [
        ("alfred", ("both", "subgoals"), 21025, 820),
        ("scan", ("simple", "actions"), 16728, 4182),
        ("scan", ("length", "actions"), 16990, 3920),
        ("scan", ("jump", "actions"), 14670, 7706),
        ("scitldr", ("en", "en"), 1992 + 619, 618),
        ("gsm8k", ("en", "en"), 7473, 1319),
    ],
)
def test_the_real_ones_are_complete(corpus, languages, known, test, tmp_path):
    if not DATA.name or not (DATA / corpus).is_dir():
        pytest.skip(f"$JAXKD_DATA/{corpus} is not here")
    actual, pairs = open_pairs(corpus, str(DATA / corpus), languages=languages, cache=tmp_path)
    assert not actual.embedded and actual.name == actual.expected != corpus
    assert len(pairs["train"]) + len(pairs["validation"]) == known
    assert len(pairs["test"]) == test
    share = len(pairs["validation"]) / known
    assert corpus == "scitldr" or 0.03 < share < 0.07
    for split in pairs.values():
        source, targets = split[len(split) // 2]
        assert source and all(targets)


TRIAL = {
    "trial": "t1",
    "anns": [
        {"task_desc": "Cool a cup.", "high_descs": ["Turn.", "Take the cup."]},
        {"task_desc": "Chill it", "high_descs": ["Look", "Grab"]},
    ],
    "high_pddl": [
        {"action": "GotoLocation", "args": ["sink"]},
        {"action": "PickupObject", "args": ["cup"]},
        {"action": "NoOp", "args": []},
    ],
    "low_actions": [[0, "MoveAhead_25"], [0, "LookDown_15"], [1, "PickupObject", "Cup|1"]],
}


def alfred(folder, rows=20):
    folder.mkdir()
    for name in ("train", "valid_seen"):
        lines = "".join(json.dumps(TRIAL | {"trial": f"{name}{i}"}) + "\n" for i in range(rows))
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return str(folder)


@pytest.mark.parametrize(
    "languages, source, target",
    [
        (("goal", "subgoals"), "Cool a cup.", "GotoLocation sink ; PickupObject cup"),
        (("steps", "manipulations"), "Turn. | Take the cup.",
         "GotoLocation sink ; PickupObject cup : PickupObject"),
        (("both", "actions"), "Cool a cup. | Turn. | Take the cup.",
         "GotoLocation sink : MoveAhead_25 LookDown_15 ; PickupObject cup : PickupObject"),
    ],
)  # fmt: skip
def test_an_instruction_and_its_plan(languages, source, target, tmp_path):
    folder = alfred(tmp_path / "f")
    pairs = open_pairs("alfred", folder, languages=languages, cache=tmp_path)[1]
    assert pairs["test"][0] == (source, (target,))
    assert len(pairs["test"]) == 40  # two annotations each
    # Annotations of one trajectory are never on both sides.
    assert len(pairs["validation"]) % 2 == 0


@pytest.mark.parametrize(
    "corpus, languages, message",
    [
        ("alfred", ("gaol", "subgoals"), "'gaol'.*Did you mean 'goal'"),
        ("alfred", ("goal", "subgoal"), "'subgoal'.*Did you mean 'subgoals'"),
        ("scan", ("simpel", "actions"), "for scan a division.*Did you mean 'simple'"),
        ("scna", ("simple", "actions"), "data.corpus='scna'.*Did you mean 'scan'"),
    ],
)
def test_sides_that_are_not_there(corpus, languages, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Pairs(corpus=corpus, dir=str(tmp_path), languages=languages).open(tmp_path)


GOOD = {
    "gsm8k": ({"question": "2 + 2?", "answer": "<<2+2=4>>4\n#### 4"}, ("train", "test")),
    "scitldr": ({"source": ["We ask. ", "We say."], "target": ["It is so."]},
                ("train", "dev", "test")),
    "tldr": ({"prompt": "POST: It rained.\n\nTL;DR:", "completion": " Rain."},
             ("train", "validation", "test")),
}  # fmt: skip
READ = {
    "gsm8k": ("2 + 2?", ("4 #### 4",)),
    "scitldr": ("We ask. We say.", ("It is so.",)),
    "tldr": ("POST: It rained.", ("Rain.",)),
}


def write(folder, corpus, first=None, rows=40):
    folder.mkdir(exist_ok=True)
    good, names = GOOD[corpus]
    key = next(iter(good))
    for name in names:
        each = [dict(good) for _ in range(rows)]
        for i, row in enumerate(each[1:], 1):  # other rows differ, or none is held out
            row[key] = [f"{i}"] if isinstance(row[key], list) else f"{i}"
        lines = [json.dumps(row) for row in each]
        if first is not None:
            lines[0] = first
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder)


@pytest.mark.parametrize("corpus", GOOD)
def test_a_row_is_read(corpus, tmp_path):
    pairs = open_pairs(corpus, write(tmp_path / "f", corpus), cache=tmp_path)[1]
    assert pairs["test"][0] == READ[corpus]


@pytest.mark.parametrize(
    "corpus, line, message",
    [
        ("gsm8k", "{", r"train.jsonl, line 1 is '{.*, and no JSON"),
        ("gsm8k", "[1]", r"train.jsonl, line 1 is .*no JSON object"),
        ("gsm8k", '{"question": "2?"}', "line 1: no field 'answer'; it has: question"),
        ("gsm8k", '{"question": null, "answer": "#### 1"}', "line 1: question is missing"),
        ("gsm8k", '{"question": "\\ud83d", "answer": "#### 1"}', "line 1: question has half of"),
        ("gsm8k", '{"question": "2?", "answer": "2"}', "line 1: its answer has no ####"),
        ("scitldr", '{"source": ["a"], "target": [" "]}', "line 1: it has no summary"),
        ("tldr", '{"prompt": "a", "completion": " "}', "line 1: completion is empty"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(corpus, line, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        open_pairs(corpus, write(tmp_path / "f", corpus, first=line), cache=tmp_path)


def test_a_command_without_its_actions_is_named(tmp_path):
    (tmp_path / "simple_split").mkdir()
    for part in ("train", "test"):
        file = tmp_path / "simple_split" / f"tasks_{part}_simple.txt"
        file.write_text("IN: walk OUT: I_WALK\nIN: run\n")
    with pytest.raises(ValueError, match=r"line 2: it is 'IN: run'; needed is 'IN: command OUT"):
        open_pairs("scan", str(tmp_path), languages=("simple", "actions"), cache=tmp_path)


def test_a_file_that_is_lacking_is_named(tmp_path):
    folder = pathlib.Path(write(tmp_path / "f", "gsm8k"))
    (folder / "test.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"test.jsonl \(or test.jsonl.gz\)"):
        open_pairs("gsm8k", str(folder), cache=tmp_path)


@pytest.mark.parametrize("corpus", ["gsm8k", "tldr"])
def test_the_hub_has_the_same_rows(corpus, tmp_path, monkeypatch):
    """Its Parquet files under the names they have there, here in a folder."""
    good, names = GOOD[corpus]
    inside = {"gsm8k": "main", "tldr": "data"}[corpus]
    requested = []

    def dataset_files(repository, files):
        requested.append(repository)
        for file in files:
            (tmp_path / file).parent.mkdir(exist_ok=True)
            rows = [dict(good) for _ in range(40)]
            key = next(iter(good))
            for i, row in enumerate(rows[1:], 1):
                row[key] = f"{i}"
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / file)
        assert all(file.startswith(f"{inside}/{name}-") for file, name in zip(files, names))  # noqa: B905
        return [tmp_path / file for file in files]

    monkeypatch.setattr(sources, "dataset_files", dataset_files)
    actual, pairs = open_pairs(corpus, origin="hub", cache=tmp_path)
    assert actual.origin == f"hub {requested[0]}"
    assert requested[0] == CORPORA[corpus](("en", "en")).repository
    assert pairs["test"][0] == READ[corpus]


def test_a_readers_mistake_is_not_taken_for_an_unreachable_hub(tmp_path, monkeypatch):
    """A language that the hub's file does not have is the user's to mend; nothing replaces it."""
    rows = "".join(json.dumps({"en": f"{i}", "de": f"{i}"}) + "\n" for i in range(3))

    def dataset_files(repository, files):
        for file in files:
            (tmp_path / file).write_text(rows)
        return [tmp_path / file for file in files]

    monkeypatch.setattr(sources, "dataset_files", dataset_files)
    with pytest.raises(ValueError, match="train.jsonl, line 1: there is no language 'xx'"):
        Pairs(languages=("en", "xx"), trained_size=300).open(tmp_path / "cache")
    rows = Pairs(trained_size=300).open(tmp_path / "cache")
    assert (rows.corpus, rows.embedded) == ("Multi30k en-de", False)
