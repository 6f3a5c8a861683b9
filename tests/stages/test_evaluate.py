"""Evaluate and Decode: fields and splits refused before work, predictions by row, true greed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.data.rows.labelled import Labelled
from jaxkd.decode.beam import Beam
from jaxkd.distil.terms import HardLabels, SoftTargets
from jaxkd.evaluate import examples
from jaxkd.models import families
from jaxkd.models.bert import Config
from jaxkd.models.model import forward
from jaxkd.runs import runner
from jaxkd.runs.experiment import Experiment
from jaxkd.stages.decode import Decode
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.generate import suppressed_tokens
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.models import load_model
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train
from jaxkd.tasks.glue import glue
from tests.stages import small, written

STEPS = dict(batch_size=8, log_every=2, save_every=4, evaluate_every=100, evaluate_rows=8)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(models=5), "models=5: at least one name"),
        (dict(models="teacher"), "models='teacher': at least one name"),
        (dict(models=()), r"models=\(\): at least one name"),
        (dict(models=("a", "a")), "each only once"),
        (dict(models=("a", 3)), "at least one name"),
        (dict(splits=("a", "a")), "splits="),
        (dict(splits="validation"), "splits='validation'"),
        (dict(batch_size=0), "batch_size is 0; it is a whole number, at least 1"),
        (dict(batch_size=2.5), "batch_size is 2.5"),
        (dict(batch_size=True), "batch_size is True"),
    ],
)
@pytest.mark.parametrize("stage", [Evaluate, Decode])
def test_fields_out_of_range_are_refused_before_any_work(stage, fields, message):
    broken = stage(models=("teacher",))
    for field, value in fields.items():
        setattr(broken, field, value)  # as flags do
    with pytest.raises(ValueError, match=message):
        broken.inputs()
        broken.check()


@pytest.mark.parametrize(
    "kind, field, value, message",
    [
        (Evaluate, "chunk", -1, "chunk is -1"),
        (Decode, "metrics", ("blue",), "'blue'.*mean 'bleu'"),
        (Decode, "metrics", "bleu", "metrics='bleu'"),
        (Decode, "rows", -1, "rows is -1"),
        (Decode, "timed", -1, "timed is -1"),
    ],
)
def test_each_field_of_its_own_has_a_range(kind, field, value, message):
    stage = kind(models=("a",))
    setattr(stage, field, value)
    with pytest.raises(ValueError, match=message):
        stage.check()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A teacher, a student and both evaluated, on the embedded sentences of two kinds."""
    at = tmp_path_factory.mktemp("labelled")
    model = Config(
        layers=2, width=16, heads=2, feed_forward=32, max_length=64, init_std=0.3,
        head="sequence_classification", labels=("negative", "positive"),
    )  # fmt: skip
    data = Labelled(origin="embedded", tokenizer="trained", trained_size=300, rows=40)
    stages = {
        "drawn": Initialise(model=model),
        "teacher": Train(source="drawn", steps=6, **STEPS),
        "pruned": Prune(source="teacher"),
        "student": Train(
            teacher="teacher", source="pruned", steps=2,
            terms={"soft": SoftTargets(), "hard": HardLabels()}, **STEPS,
        ),
        "evaluate": Evaluate(models=("teacher", "student"), batch_size=16, predictions=True),
    }  # fmt: skip
    folder = runner.run(
        Experiment(title="Labelled", data=data, stages=stages), name="labelled", variant="test",
        command="pytest", workdir=at / "runs", cache=at / "cache",
    )  # fmt: skip
    return folder, data.open(at / "cache")


def test_predictions_of_a_split_are_written_and_agree_with_the_numbers(labelled):
    folder, rows = labelled
    stage = folder / "0" / "evaluate"
    done = json.loads((stage / "done.json").read_text())["metrics"]
    for name in ("teacher", "student"):
        predictions, names = examples.load(stage / f"predictions.{name}.validation.npz")
        assert predictions.index.tolist() == list(range(len(rows.splits["validation"])))
        assert names == rows.labels
        np.testing.assert_array_equal(predictions.labels, rows.splits["validation"][:, -1])
        right = (predictions.classes == predictions.labels).mean()
        numbers = done["models"][name]["splits"]["validation"]
        assert numbers["accuracy"] == pytest.approx(right)
        lines = (stage / f"predictions.{name}.validation.tsv").read_text().splitlines()
        assert lines[1:] == [f"{i}\t{names[c]}" for i, c in enumerate(predictions.classes)]
    counts = np.bincount(rows.splits["validation"][:, -1])
    assert numbers["majority"] == pytest.approx(counts.max() / counts.sum())


def test_the_results_describe_every_number_and_the_report_shows_its_examples(labelled):
    folder, _ = labelled
    results = json.loads((folder / "results.json").read_text())
    numbers = results["models"]["student"]["seeds"]["0"]["validation"]
    assert set(numbers) <= set(results["metrics"])
    assert results["primary"] == "accuracy"
    assert results["metrics"]["majority"]["baseline_of"] == "accuracy"
    assert results["terms"]["student"]["soft"] == {"title": "soft", "unit": "nats"}
    errors = results["examples"]["student"]["0"]["validation"]
    assert errors["rows"] == 40 and errors["count"] >= len(errors["examples"])
    report = (folder / "report.md").read_text()
    assert f"{errors['count']:,} of 40 rows of the validation split are wrong" in report
    assert "always the most frequent class" in report and "perplexity" not in report


@pytest.mark.parametrize(
    "stage, message",
    [
        (Evaluate(models=("a",), splits=("test",)), "no split 'test'.*train, validation"),
        (Evaluate(models=("a",), splits=("validatoin",)), "mean 'validation'"),
        (Evaluate(models=("a",), chunk=64), "chunk is 64, and classification has no vocabulary"),
        (Decode(models=("a",), splits=("test",)), "no split 'test'"),
    ],
)
def test_what_the_opened_data_cannot_give_is_refused(labelled, stage, message):
    with pytest.raises(ValueError, match=message):
        stage.check_config({}, labelled[1])


def test_predictions_by_row_are_refused_where_rows_have_many(tmp_path):
    rows = small.experiment(small.write_corpus(tmp_path / "corpus")).data.open(tmp_path / "cache")
    with pytest.raises(ValueError, match="masked_lm has no one prediction a row"):
        Evaluate(models=("a",), predictions=True).check_config({}, rows)
    Evaluate(models=("a",), chunk=8, splits=("test",)).check_config({}, rows)


@pytest.fixture(scope="module", params=["never", "false"])
def decoded(tmp_path_factory, request):
    at = tmp_path_factory.mktemp("decoded")
    # Rewarding length makes a beam go on where greed has ended.
    beam = Beam(width=2, max_tokens=10, length_penalty=3.0, early_stopping=request.param)
    decode = Decode(models=("teacher",), metrics=("bleu", "exact"), beam=beam, batch_size=8)
    experiment = written.experiment(decode=decode)
    folder = runner.run(
        experiment, name="decoded", variant="test", command="pytest", workdir=at / "runs",
        cache=at / "cache",
    )  # fmt: skip
    return folder / "0", experiment.data.open(at / "cache")


def test_greedy_takes_the_likeliest_token_until_the_end(decoded):
    folder, rows = decoded
    config, params = load_model(folder / "teacher")
    model = families.build(config)
    part = rows.splits["test"]
    batch = jax.tree.map(jnp.array, rows.sources(part))
    suppressed = list(suppressed_tokens(rows.tokenizer, config.vocabulary))
    tokens = np.full((len(part), 10), rows.tokenizer.cls, np.int32)
    tokens = np.concatenate([tokens[:, :1], np.full_like(tokens, rows.tokenizer.pad)], 1)
    step = jax.jit(
        lambda tokens: forward(
            model, params,
            Batch(tokens=batch.tokens, mask=batch.mask, decoder_tokens=tokens,
                  decoder_mask=jnp.ones_like(tokens, bool)),
        ).logits
    )  # fmt: skip
    for i in range(10):
        logits = np.array(step(tokens)[:, i])
        logits[:, suppressed] = -np.inf
        tokens[:, i + 1] = logits.argmax(1)
    expected = []
    for row in tokens[:, 1:]:
        eos_ids = np.flatnonzero(row == rows.tokenizer.sep)
        text = rows.tokenizer.decode(row[: eos_ids[0]].tolist() if len(eos_ids) else row.tolist())
        expected.append(" ".join(text.split()))
    assert (folder / "decode" / "teacher.test.greedy.txt").read_text().splitlines() == expected


def test_decoding_describes_its_numbers(decoded):
    done = json.loads((decoded[0] / "decode" / "done.json").read_text())["metrics"]
    numbers = done["models"]["teacher"]["splits"]["test"]
    assert set(numbers) == set(done["metrics"])
    assert done["metrics"]["exact_greedy"]["title"] == "exact match, greedy"
    assert done["metrics"]["exact_greedy"]["unit"] == "%"
    assert done["metrics"]["bleu_beam"]["rows"] == {"test": written.ROWS}


def test_a_split_without_numbers_has_no_metrics(tmp_path):
    folder = tmp_path / "stsb"
    folder.mkdir()
    pairs = [(f"a dog runs {i}", f"a cat runs {i}", i % 5 + 0.5) for i in range(20)]
    for name, columns in (("train", 3), ("dev", 3), ("test", 2)):
        lines = [("sentence1", "sentence2", "score")[:columns], *(row[:columns] for row in pairs)]
        text = "".join("\t".join(map(str, line)) + "\n" for line in lines)
        (folder / f"{name}.tsv").write_text(text)
    model = Config(
        layers=1, width=16, heads=2, feed_forward=32, max_length=64,
        head="sequence_classification", labels=("score",),
    )  # fmt: skip
    data = Labelled(corpus="stsb", dir=str(folder), tokenizer="trained", trained_size=300)
    stages = {
        "model": Initialise(model=model),
        "evaluate": Evaluate(models=("model",), splits=(), batch_size=16, predictions=True),
    }
    experiment = Experiment(title="STS-B", data=data, stages=stages, task=glue("STS-B", ()))
    at = runner.run(
        experiment, name="stsb", variant="test", command="pytest",
        workdir=tmp_path / "runs", cache=tmp_path / "cache",
    )  # fmt: skip
    splits = json.loads((at / "results.json").read_text())["models"]["model"]["seeds"]["0"]
    assert {"pearson", "spearman"} <= set(splits["validation"])
    assert not splits.get("test")
    assert (at / "0" / "evaluate" / "predictions.model.test.tsv").is_file()
