"""A teacher's targets are stored once, and a student learns from them what it would from it."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from jaxkd.core import ranges
from jaxkd.data.rows.masking import Masking
from jaxkd.data.rows.text import CausalText, MaskedText
from jaxkd.distil.terms import CosineHidden, HardLabels, SoftTargets
from jaxkd.models.llama import Config as Llama
from jaxkd.runs import runner
from jaxkd.runs.experiment import Experiment
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.label import Label
from jaxkd.stages.models import load_model
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train
from tests.stages import small

STEPS = dict(steps=6, batch_size=8, log_every=2, save_every=4, evaluate_rows=8, chunk=16)
TERMS = {"kd": SoftTargets(), "ce": HardLabels(weight=0.5)}


def experiment(corpus, **stages) -> Experiment:
    """A teacher of one step, whose students are what is looked at; 6 steps are two epochs."""
    model = Llama(
        vocabulary=256, layers=2, width=16, heads=2, feed_forward=32, max_length=32, init_std=0.3
    )
    text = dict(dir=str(corpus), tokenizer="trained", trained_size=256, length=33, rows=24)
    first = {
        "teacher_init": Initialise(model=model),
        "teacher": Train(source="teacher_init", **(STEPS | dict(steps=1))),
        "student_init": Prune(source="teacher"),
    }
    return Experiment(title="Stored", data=CausalText(**text), stages=first | stages)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("label")
    small.write_corpus(workspace / "corpus")
    return workspace


def run(workspace, *, workdir="runs", change=lambda e: e, **stages):
    return runner.run(
        change(experiment(workspace / "corpus", **stages)),
        name="stored", variant="test", command="pytest",
        workdir=workspace / workdir, cache=workspace / "cache",
    )  # fmt: skip


def learn(**arguments) -> Train:
    own = {name: dataclasses.replace(term) for name, term in TERMS.items()}
    arguments = dict(source="student_init", teacher="teacher", terms=own) | STEPS | arguments
    return Train(**arguments)


@pytest.mark.slow
def test_from_stored_states_a_student_becomes_what_it_does_under_the_teacher(workspace):
    """Trap 14: under shuffling, two epochs, accumulation and another number of devices."""
    folder = run(
        workspace,
        labels=Label(kind="states", shard_rows=10),
        online=learn(),
        stored=learn(labels="labels"),
        parts=learn(labels="labels", accumulate=2, parallel="jitted"),
    )
    output = json.loads((folder / "0" / "labels" / "done.json").read_text())["metrics"]
    assert output["examples"] == 24
    assert len(list((folder / "0" / "labels" / "store").glob("*.arrayrecord"))) == 3
    _, expected = load_model(folder / "0" / "online")
    for name in ("stored", "parts"):
        _, actual = load_model(folder / "0" / name)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), actual, expected)
    (_, start) = load_model(folder / "0" / "student_init")
    moved = np.abs(np.asarray(start["embed"]["token"]) - np.asarray(expected["embed"]["token"]))
    assert moved.max() > 1e-3  # so that 1e-5 means something


@pytest.mark.slow
@pytest.mark.parametrize("kind, most", [("draws", 40), ("top_k", 8 * 2 + 9 * 4)])
def test_a_student_learns_from_some_tokens_and_a_cut_off_stage_goes_on(workspace, kind, most):
    label = Label(kind=kind, k=8, shard_rows=10)
    # A line of metrics for each epoch: both have the same rows, so they can be compared.
    terms = {"kd": SoftTargets()}
    learned = learn(labels="labels", terms=terms, steps=12, log_every=3, save_every=3)
    folder = run(workspace, workdir=kind, labels=label, student=learned)
    store = folder / "0" / "labels" / "store"
    output = json.loads((folder / "0" / "labels" / "done.json").read_text())["metrics"]
    assert output["bytes_a_target"] <= most + 1
    lines = (folder / "0" / "student" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    kd = [row["kd"] for row in rows if row["split"] == "train"]
    assert np.isfinite(kd).all() and len(kd) == 4 and kd[-1] < kd[0]
    # As if killed before the last shard: the first two are not made again, the bytes are the same.
    shards = sorted(store.glob("*.arrayrecord"))
    before = [(file.stat().st_mtime_ns, file.read_bytes()) for file in shards]
    shards[2].unlink()
    (store / "store.json").unlink()
    (folder / "0" / "labels" / "done.json").unlink()
    run(workspace, workdir=kind, labels=label, student=learned)
    after = [(file.stat().st_mtime_ns, file.read_bytes()) for file in shards]
    assert [content for _, content in after] == [content for _, content in before]
    assert [when for when, _ in after[:2]] == [when for when, _ in before[:2]]


@pytest.mark.slow
def test_a_store_of_another_teacher_is_refused_by_hash(workspace, tmp_path):
    first = run(workspace, workdir="first", labels=Label(kind="states"))
    other = run(
        workspace,
        workdir="other",
        change=lambda e: dataclasses.replace(e, seeds=(1,)),
        labels=Label(kind="states"),
    )
    shutil.rmtree(first / "0" / "labels" / "store")
    shutil.copytree(other / "1" / "labels" / "store", first / "0" / "labels" / "store")
    with pytest.raises(ValueError, match="was made from something else .teacher: .*; seed: 1"):
        run(workspace, workdir="first", labels=Label(kind="states"), student=learn(labels="labels"))


@pytest.mark.slow
def test_rows_that_are_masked_anew_are_not_stored(workspace):
    def masked(experiment):
        text = MaskedText(dir=str(workspace / "corpus"), tokenizer="trained", length=16, rows=8)
        labels = experiment.stages["labels"]
        stages = small.experiment(workspace / "corpus", teacher_steps=1).stages
        first = {name: stages[name] for name in ("teacher_init", "teacher")}
        return dataclasses.replace(experiment, data=text, stages=first | {"labels": labels})

    with pytest.raises(ValueError, match="masking.fixed is False"):
        run(workspace, workdir="masked", change=masked, labels=Label())
    fixed = Label(masking=Masking(smoothing=0.0, fixed=True))
    folder = run(workspace, workdir="masked", change=masked, labels=fixed)
    assert (folder / "0" / "labels" / "done.json").exists()


@pytest.mark.parametrize(
    "stage, message",
    [
        (Label(kind="state"), "kind is 'state'. Did you mean 'states'"),
        (
            learn(labels="labels", teacher_dtype="int8", terms=TERMS),
            "a stored teacher is not held in memory",
        ),
        (learn(teacher_dtype="int4", terms=TERMS), "teacher_dtype is 'int4'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(workspace, tmp_path, stage, message):
    with pytest.raises(ValueError, match=message):
        ranges.check(stage)
        stage.check()


@pytest.mark.parametrize(
    "student, message",
    [
        (learn(labels="labels", terms={"cos": CosineHidden()}), "look into the teacher's layers"),
        (
            learn(labels="student_init", terms=TERMS),
            "labels='student_init': that is no Label stage",
        ),
        (
            learn(labels="labels", teacher="student_init", terms=TERMS),
            "no Label stage of the teacher",
        ),
    ],
)
def test_a_store_and_a_student_that_do_not_fit_are_refused_before_anything_runs(student, message):
    with pytest.raises(ValueError, match=message):
        experiment("corpus", labels=Label(), student=student).check()


def test_draws_serve_soft_targets_at_temperature_one_alone():
    hot = learn(labels="labels")
    hot.terms["kd"].temperature = 2.0
    with pytest.raises(ValueError, match="terms.kd: of a teacher stored as draws only SoftTargets"):
        experiment("corpus", labels=Label(kind="draws"), student=hot).check()


@pytest.mark.slow
def test_a_teacher_held_in_int8_says_what_it_costs(workspace):
    folder = run(workspace, student=learn(teacher_dtype="int8"))
    output = json.loads((folder / "0" / "student" / "done.json").read_text())["metrics"]
    assert output["teacher_megabytes"] < 0.35 * output["teacher_megabytes_float32"]
    assert 0 < output["teacher_kl"] < 1e-2
