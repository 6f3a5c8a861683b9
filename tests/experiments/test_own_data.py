"""Your own data and model, one command each: files are made on the spot, in an empty folder."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import transformers

from experiments import classify, translate
from jaxkd.data.rows.pairs import Pairs
from tests.experiments import folders
from tests.processes import run_program
from tests.xla import FAST_COMPILATION

ROOT = pathlib.Path(__file__).parents[2]
slow = pytest.mark.slow  # a minute each
FEW = 6  # steps
# Smoke runs and the first of these write the other formats.
HUGGINGFACE_ALONE = "--config.stages.export.skip=('onnx','onnx_int8','bundle','bundle_int8')"
# Untrained models write as long as they may.
SHORT = tuple(f"--config.stages.{name}.beam.max_tokens=16" for name in ("generated", "decode"))


def run(folder: pathlib.Path, name: str, *options: str) -> subprocess.CompletedProcess:
    env = os.environ | {
        "JAXKD_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": FAST_COMPILATION,
    }  # fmt: skip
    env.pop("JAXKD_DATA", None)
    words = [str(ROOT / "run.py"), "--config", str(ROOT / f"experiments/{name}.py")]
    for stage in ("teacher", "student", "alone"):
        words += [f"--config.stages.{stage}.steps={FEW}"]
        words += [f"--config.stages.{stage}.evaluate_every=3"]
    return run_program([*words, *options], folder, env)


def results_of(folder: pathlib.Path, name: str) -> tuple[dict, str]:
    at = folder / "runs" / f"{name}-mini"
    return json.loads((at / "results.json").read_text()), (at / "report.md").read_text()


@slow
def test_classify_a_table(tmp_path):
    folders.bert(tmp_path / "teacher")
    folders.write_csv(tmp_path / "reviews.csv", ["review", "stars"], folders.reviews(120))
    done = run(
        tmp_path, "classify", "--config.data.train=reviews.csv", "--config.teacher=teacher",
        "--config.data.text=review", "--config.data.label=stars", "--config.layers=3",
        "--config.stages.teacher.steps=60", "--config.stages.teacher.optimiser.learning_rate=3e-3",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results, report = results_of(tmp_path, "classify")
    assert results["models"]["student"]["layers"] == 3
    assert results["models"]["teacher"]["layers"] == 4
    assert "reviews.csv" in report and "review" in report and "SST-2" not in report
    assert results["data"]["rows"] == {"train": 108, "validation": 12}  # a tenth of each class
    assert "held out" in report
    for checked in results["exports"]["export"]["0"].values():
        assert checked["max_abs_difference"] < 1e-4 or "bits" in checked  # int8 is scored
    exported = tmp_path / "runs/classify-mini/0/export/huggingface"
    message = subprocess.run(
        [sys.executable, "-m", "jaxkd.predict", str(exported), "--text", "the film was good"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert message.returncode == 0, message.stderr
    assert "pos" in message.stdout and "neg" in message.stdout

    # The exported student predicts these labels already: as a teacher it is used as it is.
    again = run(
        tmp_path, "classify", "--config.data.train=reviews.csv", f"--config.teacher={exported}",
        "--config.data.text=review", "--config.data.label=stars", "--config.layers=1",
        "--workdir=second", HUGGINGFACE_ALONE,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    assert "used as it is" in again.stdout
    record = json.loads((tmp_path / "second/classify-mini/0/teacher/done.json").read_text())
    assert record["metrics"]["steps"] == 0


@slow
def test_classify_pairs_with_a_validation_file(tmp_path):
    folders.bert(tmp_path / "teacher")
    rows = [(text, text[::-1], label) for text, label in folders.reviews(60)]
    folders.write_csv(tmp_path / "train.tsv", ["a"], [])  # a file that is not given is not read
    folders.write_csv(tmp_path / "train.csv", ["premise", "hypothesis", "label"], rows[:40])
    folders.write_csv(tmp_path / "dev.csv", ["premise", "hypothesis", "label"], rows[40:])
    done = run(
        tmp_path, "classify", "--config.data.train=train.csv", "--config.data.validation=dev.csv",
        "--config.data.text=premise,hypothesis", "--config.teacher=teacher", HUGGINGFACE_ALONE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results, report = results_of(tmp_path, "classify")
    assert results["data"]["rows"] == {"train": 40, "validation": 20}
    assert "premise" in report and "hypothesis" in report


@slow
def test_a_regression(tmp_path):
    folders.bert(tmp_path / "teacher")
    rows = [(text, i % 7 / 2) for i, (text, _) in enumerate(folders.reviews(80))]
    folders.write_csv(tmp_path / "scores.csv", ["text", "score"], rows)
    done = run(
        tmp_path, "classify", "--config.data.train=scores.csv", "--config.data.label=score",
        "--config.data.regression=True", "--config.teacher=teacher", HUGGINGFACE_ALONE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results, report = results_of(tmp_path, "classify")
    assert "Pearson" in report
    at = tmp_path / "runs/classify-mini/0/evaluate/predictions.student.validation.npz"
    written = np.load(at)
    expected = np.corrcoef(written["scores"].ravel(), written["labels"])[0, 1]
    actual = results["models"]["student"]["seeds"]["0"]["validation"]["pearson"]
    np.testing.assert_allclose(actual, expected, atol=1e-4)


@slow
def test_translate_two_files_and_a_table(tmp_path):
    words = folders.OTHER
    lines = [" ".join(words[(i * k) % len(words)] for k in (1, 2, 3)) + f" {i}" for i in range(90)]
    turned = [" ".join(reversed(line.split())) for line in lines]
    for name, part in (("train", slice(0, 70)), ("dev", slice(70, 90))):
        (tmp_path / f"{name}.en").write_text("\n".join(lines[part]) + "\n")
        (tmp_path / f"{name}.de").write_text("\n".join(turned[part]) + "\n")
    small = ("--config.stages.decode.rows=8", "--config.stages.generated.batch_size=16", *SHORT)
    done = run(
        tmp_path, "translate", "--config.data.train=('train.en','train.de')",
        "--config.data.validation=('dev.en','dev.de')", *small, "--config.data.trained_size=300",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results, report = results_of(tmp_path, "translate")
    assert results["data"]["rows"]["train"] == 70
    assert "train.en" in report

    pairs = [{"question": a, "sql": b} for a, b in zip(lines, turned, strict=True)]
    folders.write_jsonl(tmp_path / "pairs.jsonl", pairs)
    rows = Pairs(
        train=str(tmp_path / "pairs.jsonl"), source="question", target="sql",
        tokenizer="trained", trained_size=300, read=64, write=64,
    ).open(tmp_path / "cache")  # fmt: skip
    assert rows.corpus == "pairs.jsonl"
    held_out = set(rows.references("validation"))
    assert held_out and held_out | set(rows.references("train")) == {(each,) for each in turned}


@slow
def test_translate_with_a_teacher_of_ones_own(tmp_path):
    folders.bart(tmp_path / "teacher")
    rows = [(line, line.upper()) for line, _ in folders.reviews(60)]
    folders.write_csv(tmp_path / "pairs.csv", ["source", "target"], rows)
    done = run(
        tmp_path, "translate", "--config.data.train=pairs.csv", "--config.teacher=teacher",
        "--config.pretrained.compute=float32", "--config.layers=2", "--config.data.read=64",
        "--config.data.write=64", "--config.stages.decode.rows=4",
        "--config.stages.generated.batch_size=16", HUGGINGFACE_ALONE, *SHORT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results, _ = results_of(tmp_path, "translate")
    assert results["models"]["student"]["layers"] < results["models"]["teacher"]["layers"]
    saved = tmp_path / "runs/translate-mini/0/export/huggingface"
    opened = transformers.AutoModelForSeq2SeqLM.from_pretrained(saved)
    assert (opened.config.decoder_layers, opened.config.encoder_layers) == (2, 2)
    stage = json.loads((tmp_path / "runs/translate-mini/0/teacher/config.json").read_text())
    assert stage["settings"]["optimiser"]["learning_rate"] == 5e-5


def test_what_a_flag_changed_is_not_replaced():
    changed = classify.get_config()
    changed.data.train, changed.data.regression = "scores.csv", True
    changed.stages["student"].terms["hidden"].weight = 7.0
    changed.resolve()
    terms = changed.stages["student"].terms
    assert set(terms) == {"teacher_score", "hidden", "squared_error"}
    assert terms["hidden"].weight == 7.0
    assert {each.metric for each in changed.report.comparisons} == {"pearson"}

    changed = translate.get_config()
    changed.data.train, changed.teacher = "pairs.csv", "teacher"
    changed.stages["teacher"].optimiser.learning_rate = 1e-3
    changed.stages["decode"].beam.max_tokens = 5
    changed.resolve()
    rates = [changed.stages[name].optimiser.learning_rate for name in ("teacher", "student")]
    assert rates == [1e-3, 2e-4]
    assert changed.stages["decode"].beam.max_tokens == 5
    assert changed.stages["generated"].beam.max_tokens == changed.data.write

    changed = translate.get_config()
    changed.data.train, changed.teacher = "pairs.csv", "teacher"
    changed.stages["student_init"].model.width = 32
    with pytest.raises(ValueError, match="stages.student_init was changed"):
        changed.resolve()

    changed = translate.get_config()
    changed.data.train = "pairs.csv"
    changed.pretrained.compute = "float32"
    with pytest.raises(ValueError, match="--config.teacher names none"):
        changed.resolve()


@slow
def test_generate_text_and_answer_prompts(tmp_path):
    folders.llama(tmp_path / "teacher")
    text = "\n\n".join(f"{line} and then {line}." for line, _ in folders.reviews(60))
    (tmp_path / "corpus.txt").write_text(text)
    done = run(
        tmp_path, "generate_text", "--config.data.train=corpus.txt", "--config.teacher=teacher",
        "--config.data.length=32", "--config.layers=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results, report = results_of(tmp_path, "generate_text")
    assert "corpus.txt" in report and results["models"]["student"]["layers"] == 2

    folders.write_jsonl(
        tmp_path / "qa.jsonl",
        [{"prompt": f"say {label} {i}", "answer": label} for i, (_, label) in
         enumerate(folders.reviews(60))],
    )  # fmt: skip
    done = run(
        tmp_path, "instruct", "--config.data.train=qa.jsonl", "--config.data.prompt=prompt",
        "--config.data.answer=answer", "--config.teacher=teacher", "--config.data.read=32",
        "--config.data.write=8", "--config.stages.decode.rows=4",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results, report = results_of(tmp_path, "instruct")
    assert "qa.jsonl" in report and results["models"]["student"]["layers"] == 3


WRONG = {
    "no file": ((), "data.train is empty"),
    "label missing": (("text,label\ngood,pos\nbad,\n",), "line 3"),
    "text empty": (("text,label\ngood,pos\n,neg\n",), "line 3"),
    "ragged": (("text,label\ngood,pos\nbad,neg,more\n",), "line 3"),
    "duplicate header": (("text,text,label\na,b,pos\n",), "text"),
    "two columns of texts": (("one,two,label\na,b,pos\nc,d,neg\n",), "one"),
}


@slow
@pytest.mark.parametrize("case", WRONG)
def test_bad_rows_are_named_before_anything_is_computed(case, tmp_path):
    files, expected = WRONG[case]
    folders.bert(tmp_path / "teacher")
    options = ["--config.teacher=teacher"]
    for content in files:
        (tmp_path / "rows.csv").write_text(content)
        options.append("--config.data.train=rows.csv")
    done = run(tmp_path, "classify", *options)
    assert done.returncode == 1
    assert expected in done.stdout, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not list((tmp_path / "runs").glob("*/0/*")), "a stage ran before the rows were refused"
