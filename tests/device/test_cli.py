"""The command line: answers, files, measures, and what it says of impossible requests."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jaxkd.data.tokenizers.tokenizer import open_tokenizer
from jaxkd.device.cli import main
from tests.device import bundles

PROSE = ["the film was good and the other one was bad , not good"] * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli")
    known = open_tokenizer(
        "trained", texts=lambda: PROSE, fingerprint="f", cache=root / "c", trained_size=300
    )
    config = bundles.config_of(
        "bert", "sequence_classification", layers=3, exits=(0, 1), labels=("bad", "good"),
        vocabulary=known.vocab_size,
    )  # fmt: skip
    bundles.write(root / "b", config, save_tokenizer=known.save)
    return root / "b"


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_texts_pairs_and_files(folder, tmp_path, capsys):
    assert main(["--text", "the film was good"], folder) == 0
    words = capsys.readouterr().out
    assert words.split()[0] in ("bad", "good") and "(3 of 3 blocks)" in words
    (tmp_path / "in.tsv").write_text("the film was good\n\nthe one was bad\tnot good\n")
    together = ["--file", str(tmp_path / "in.tsv"), "--json", "--batch", "2"]
    assert main(together, folder) == 0
    first, second = lines(capsys)
    assert main(["--text", "the one was bad", "--pair", "not good", "--json"], folder) == 0
    (alone,) = lines(capsys)
    assert alone["scores"]["good"] == pytest.approx(second["scores"]["good"], abs=1e-6)
    assert first["exit"] == "head" and sum(first["scores"].values()) == pytest.approx(1)
    assert main(["--text", "the film", "--patience", "1", "--json"], folder) == 0
    assert lines(capsys)[0]["blocks"] in (2, 3)


def test_times_are_kept_and_used(folder, tmp_path, capsys):
    text = ["--text", "the film was good"]
    assert main([*text, "--bench", "--seconds", "0.1", "--save-times"], folder) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["milliseconds"]["p50"] <= measured["milliseconds"]["p99"]
    assert set(measured["parts"]) == {
        "embed", "block_00", "block_01", "block_02", "exit_00", "exit_01", "head",
    }  # fmt: skip
    assert json.loads((folder / "times.json").read_text()) == measured["parts"]
    assert main([*text, "--deadline-ms", "1e-6", "--json"], folder) == 0
    assert lines(capsys)[0]["exit"] == "exit_00"
    (folder / "times.json").write_text("{}")
    assert main(text, folder) == 2
    assert "--save-times" in capsys.readouterr().err
    (folder / "times.json").unlink()


def test_two_bundles_side_by_side(folder, capsys):
    requested = ["--text", "the film", "--versus", str(folder), "--seconds", "0.2"]
    assert main(requested, folder) == 0
    result = json.loads(capsys.readouterr().out)
    assert 0.5 < result["this_over_other"]["median"] < 2
    assert result["inferences"] > 3


@pytest.mark.parametrize(
    "requested, message",
    [
        ([], "give --text, --file or --ids"),
        (["--file", "none.tsv"], "none.tsv cannot be read"),
        (["--text", "a", "--pair", "b", "--pair", "c"], "1 --text and 2 --pair"),
        (["--ids", "1,two"], "numbers with commas"),
        (["--ids", "99999"], "the model knows 0 to"),
        (["--text", "a", "--rule", "optimal"], "has none"),
        (["--text", "a", "--lambda", "0.1"], "calibration"),
        (["--text", "a", "--rule", "patience"], "needs --patience"),
        (["--text", "a", "--patience", "3"], "1 to 2"),
        (["--text", "a", "--rule", "entropy"], "needs --threshold"),
        (["--text", "a", "--batch", "0"], "above 0"),
        (["--text", "a", "--budget-mb", "-1"], "above 0"),
    ],
)
def test_impossible_requests(requested, message, folder, capsys):
    assert main(requested, folder) == 2
    output = capsys.readouterr()
    assert message in output.err and not output.out


def test_the_script_of_the_folder_needs_nothing_of_ours(folder, tmp_path):
    """In a directory of its own, with no path to jaxkd: only numpy and onnxruntime are imported."""
    check = (
        "import runpy, sys; sys.argv = [sys.argv[1], '--ids', '1,2']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'jax', 'flax', 'torch', 'onnx', 'transformers', 'tokenizers'}\n"
        "import jaxkd; print(jaxkd.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", check, str(folder / "run_device.py")],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert pathlib.Path(done.stdout.split()[-1]) == folder / "jaxkd" / "__init__.py"
    assert not list(folder.rglob("__pycache__"))


def test_a_writer_writes_text_and_ids(tmp_path, capsys):
    config = bundles.config_of("gpt2", "causal_lm")
    generation = {"eos_ids": [5], "suppress_tokens": [0]}
    bundles.write(tmp_path / "b", config, generation=generation)
    assert main(["--ids", "1,2,3", "--max-tokens", "4", "--beam", "2"], tmp_path / "b") == 0
    (result,) = lines(capsys)
    assert result["text"] is None and 1 <= len(result["ids"]) <= 4 and 0 not in result["ids"]
    assert main(["--text", "words"], tmp_path / "b") == 2
    assert "no tokenizer" in capsys.readouterr().err
    assert np.isfinite(result["score"])


def test_a_text_is_utf8_in_any_locale(folder):
    """A board's shell often has the locale C, under which Python 3.6 reads arguments as ASCII."""
    answers = []
    for locale in ("C", "C.UTF-8"):
        done = subprocess.run(
            [sys.executable, str(folder / "run_device.py"), "--text", "für gute Filme", "--json"],
            capture_output=True,
            env={"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout.decode("utf-8"))["scores"])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "head, labels, problem_type, expected",
    [
        ("sequence_classification", ("a", "b", "c"), "", {"label", "scores"}),
        ("sequence_classification", ("a", "b"), "multi_label_classification", {"labels", "scores"}),
        ("sequence_classification", ("score",), "", {"value"}),
        ("sequence_classification", ("a", "b"), "regression", {"a", "b"}),
        ("multi_task", ("x:0", "x:1", "y:0", "y:1", "y:2"), "", {"tasks"}),
        ("token_classification", ("a", "b"), "", {"labels", "logits", "shape"}),
    ],
)
def test_answers_of_each_kind_of_head(head, labels, problem_type, expected, tmp_path, capsys):
    config = bundles.config_of("bert", head, labels=labels, problem_type=problem_type)
    bundles.write(tmp_path / "b", config)
    assert main(["--ids", "1,2", "--json"], tmp_path / "b") == 0
    (result,) = lines(capsys)
    assert set(result) == expected | {"exit", "blocks", "milliseconds"}
    if head == "multi_task":
        assert {task: len(each["scores"]) for task, each in result["tasks"].items()} == {
            "x": 2, "y": 3,
        }  # fmt: skip
    if problem_type == "multi_label_classification":
        assert all(0 < score < 1 for score in result["scores"].values())
    assert main(["--ids", "1,2"], tmp_path / "b") == 0


def test_a_prompt_is_continued_to_the_last_position(tmp_path, capsys):
    config = bundles.config_of("gpt2", "causal_lm")  # 24 positions
    bundles.write(tmp_path / "b", config)
    prompt = ",".join(["3"] * 20)
    assert main(["--ids", prompt], tmp_path / "b") == 0
    (result,) = lines(capsys)
    assert len(result["ids"]) == 5  # the last token is not fed
    assert main(["--ids", prompt, "--patience", "1"], tmp_path / "b") == 2
    assert main(["--ids", ",".join(["3"] * 9), "--max-tokens", "16"], tmp_path / "b") == 0
    assert len(lines(capsys)[0]["ids"]) == 16


def test_what_a_checkpoint_says_of_the_end_is_in_the_bundle(tmp_path):
    config = bundles.config_of("marian", "seq2seq_lm")
    bundles.write(tmp_path / "b", config)
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["generation"]["eos_ids"] == [config.end]
