"""The command line: help that helps, and errors that name what was meant, before any work."""

import ast
import pathlib

import pytest

from jaxkd.runs.command import main

SMALL = "tests/stages/small.py"
WIKITEXT = "experiments/wikitext.py"


def output(capsys, *words: str) -> tuple[int, str]:
    status = main(["run.py", *words])
    return status, "".join(capsys.readouterr())


def test_help_names_every_experiment_and_what_it_shows(capsys):
    status, message = output(capsys, "--help")
    assert status == 0
    names = [file.stem for file in pathlib.Path("experiments").glob("*.py")]
    assert all(f"\n  {name} " in message for name in names)
    assert "does a teacher trained with LayerDrop make a better pruned student?" in message
    assert "--workdir" in message and "--config.FIELD=VALUE" in message
    assert len(message.splitlines()) <= 40


@pytest.mark.parametrize("words", [["--help", "wikitext"], ["--config", WIKITEXT, "--help"]])
def test_help_of_one_experiment_is_the_docstring_of_its_file(capsys, words):
    status, message = output(capsys, *words)
    assert status == 0
    docstring = ast.get_docstring(ast.parse(pathlib.Path(WIKITEXT).read_text()))
    assert docstring in message


def test_help_of_an_unknown_experiment_names_the_one_meant(capsys):
    status, message = output(capsys, "--help", "wikitxt")
    assert status == 1 and "Did you mean 'wikitext'" in message


@pytest.mark.parametrize(
    "words, meant",
    [
        (["--config", "experiments/wikitxt.py"], "Did you mean 'experiments/wikitext.py'"),
        (["--config", f"{WIKITEXT}:mino"], "Did you mean 'mini'"),
        (["--config", WIKITEXT, "--config.stages.teacher_plane.steps=3"], "'teacher_plain'"),
        (["--config", WIKITEXT, "--config.stages.teacher_plain.step=3"], "Did you mean 'steps'"),
        (["--config", WIKITEXT, "--config.sed=3"], "config has no 'sed'. Did you mean 'seeds'"),
        (["--config", WIKITEXT, "--workdri=x"], "Did you mean 'workdir'"),
        (["--config", WIKITEXT, "extra"], "'extra' is no option"),
        (
            ["--config", WIKITEXT, "--config.stages.teacher_plain.steps=many"],
            "config.stages.teacher_plain.steps is 'many'; it must be int, at least 1: optimiser",
        ),
        (
            ["--config", WIKITEXT, "--config.stages.teacher_plain.steps=0"],
            "stage 'teacher_plain': steps is 0; it must be at least 1",
        ),
        (["--config", WIKITEXT, "--config.stages.evaluate.models=5"], "models is (5,)"),
        (["--workdir", "x"], "no experiment: give --config"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_one_meant(capsys, tmp_path, words, meant):
    status, message = output(
        capsys, *words, *(["--workdir", str(tmp_path)] if "--workdir" not in words else [])
    )
    assert status == 1
    assert meant in message and "Traceback" not in message
    assert not list(tmp_path.iterdir())


def test_show_lists_every_field_and_flags_change_them(capsys):
    status, message = output(
        capsys, "--config", WIKITEXT, "--show",
        "--config.stages.teacher_robust.layer_drop=0.3", "--config.seeds=(4,5)",
        "--config.stages.student_plain.terms.soft_targets.temperature=4",
    )  # fmt: skip
    assert status == 0
    lines = [line.partition("  # ")[0] for line in message.splitlines()]
    assert "--config.stages.teacher_robust.layer_drop=0.3" in lines
    assert "--config.stages.teacher_plain.layer_drop=0.0" in lines
    assert "--config.stages.student_plain.terms.soft_targets.temperature=4.0" in lines
    assert "--config.stages.student_robust.terms.soft_targets.temperature=2.0" in lines
    assert "--config.seeds=(4, 5)" in lines
    drop = next(line for line in message.splitlines() if "teacher_robust.layer_drop" in line)
    assert drop.endswith("# float, at least 0 and below 1: probability that a block is skipped")


@pytest.mark.parametrize("variant", ["mini", "converged", "smoke", "paper", "base"])
def test_every_variant_can_be_built_and_its_stages_share_nothing(capsys, variant):
    status, message = output(capsys, "--config", f"{WIKITEXT}:{variant}", "--show")
    assert status == 0
    from experiments.wikitext import get_config

    experiment = get_config(variant)
    teacher, other = (experiment.stages[f"teacher_{arm}"] for arm in ("plain", "robust"))
    teacher.optimiser.learning_rate = 123.0
    assert other.optimiser.learning_rate != 123.0
    if variant != "base":
        experiment.stages["teacher_plain_init"].model.width = 7
        assert experiment.stages["teacher_robust_init"].model.width != 7


@pytest.mark.parametrize(
    "harm, said_so",
    [
        (lambda d: (d / "wiki.valid.tokens").unlink(), "wiki.valid"),
        (lambda d: (d / "wiki.train.tokens").write_bytes(b""), "0 bytes and no text"),
        (lambda d: (d / "wiki.train.tokens").write_bytes(b"\xff\xfe caf\xe9"), "UTF-8"),
    ],
)
def test_a_data_folder_that_cannot_be_read_is_named(capsys, tmp_path, monkeypatch, harm, said_so):
    from tests.stages.small import write_corpus

    corpus = write_corpus(tmp_path / "corpus")
    harm(corpus)
    monkeypatch.setenv("JAXKD_CACHE", str(tmp_path / "cache"))
    status, message = output(
        capsys, "--config", SMALL, f"--config.data.dir={corpus}", "--workdir", str(tmp_path / "r")
    )
    assert status == 1
    assert said_so in message and str(corpus) in message
