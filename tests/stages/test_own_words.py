"""Decoders that go on from a question: a teacher's right answers, a student's own words."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.data.rows.pairs import NOTHING, Pairs
from jaxkd.decode.beam import Beam, searcher
from jaxkd.distil.on_policy import OnPolicy
from jaxkd.distil.terms import Divergence, HardLabels
from jaxkd.metrics.text import answer_match
from jaxkd.models import families
from jaxkd.models.llama import Config as Llama
from jaxkd.runs import runner
from jaxkd.runs.experiment import Experiment, Workspace
from jaxkd.stages import choose
from jaxkd.stages.choose import Choose
from jaxkd.stages.decode import Decode
from jaxkd.stages.generate import Generate
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.models import load_model
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train

STEPS = dict(batch_size=8, log_every=1, save_every=3, evaluate_every=100, evaluate_rows=8)
GKD = {"jensen_shannon": Divergence(kind="jensen_shannon")}


def corpus(folder: pathlib.Path) -> str:
    """Sums, worked out."""
    folder.mkdir(exist_ok=True)
    for name, start in (("train", 0), ("test", 5)):
        rows = [
            {
                "question": f"{a} + {b}?",
                "answer": f"It is <<{a}+{b}={a + b}>>{a + b}.\n#### {a + b}",
            }
            for a in range(start, start + 6)
            for b in range(6)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def experiment(workspace, **stages) -> Experiment:
    model = Llama(layers=2, width=16, heads=2, feed_forward=32, max_length=128, init_std=0.3)
    data = Pairs(
        corpus="gsm8k", dir=corpus(workspace / "gsm8k"), trained_size=270, read=32, write=40,
        shares=(1.0,), joined=" So:",
    )  # fmt: skip
    first = {
        "teacher_init": Initialise(model=model),
        "teacher": Train(source="teacher_init", steps=3, **STEPS),
        "student_init": Prune(source="teacher"),
    }
    return Experiment(title="Own words", data=data, stages=first | stages)


def run(workspace, workdir="runs", stopping=lambda: False, **stages):
    return runner.run(
        experiment(workspace, **stages), name="own", variant="test", command="pytest",
        workdir=workspace / workdir, cache=workspace / "cache", stopping=stopping,
    ) / "0"  # fmt: skip


def learner(**changes) -> Train:
    arguments = dict(
        teacher="teacher", source="student_init", terms=GKD, steps=6, on_policy=OnPolicy(share=0.5)
    )
    return Train(**(arguments | STEPS | changes))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("own words")


@pytest.fixture(scope="module")
def whole(workspace):
    beam = Beam(width=2, n_best=2, max_tokens=16)
    return run(
        workspace,
        generated=Generate(teacher="teacher", beam=beam, batch_size=8, shard_rows=16),
        right=Choose(source="generated", how="right"),
        student=learner(),
        decode=Decode(models=("student",), metrics=("answer",), beam=beam, batch_size=8),
    )


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_some_batches_are_its_own_words(whole):
    shares = [row["on_policy"] for row in lines(whole / "student") if row["split"] == "train"]
    assert len(shares) == 6 and set(shares) == {0.0, 1.0}


def test_cut_off_and_resumed_it_becomes_the_same(workspace, whole):
    seen = []

    def stopping():
        folder = workspace / "again"
        seen.append(any(folder.rglob("student/metrics.jsonl")))
        return seen.count(True) == 2

    with pytest.raises(KeyboardInterrupt, match="stopped after step"):
        run(workspace, "again", stopping=stopping, student=learner())
    _, actual = load_model(run(workspace, "again", student=learner()) / "student")
    _, expected = load_model(whole / "student")
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_what_it_writes_goes_on_from_the_question(workspace, whole):
    """The texts are answers alone, one to a question, and are what the numbers are of."""
    texts = (whole / "decode" / "student.test.beam.txt").read_text().splitlines()
    rows = experiment(workspace).data.open(workspace / "cache")
    assert len(texts) == len(rows.splits["test"]) == 36
    config, params = load_model(whole / "student")
    known = rows.tokenizer
    search = searcher(
        families.build(config), config, Beam(width=2, max_tokens=16), eos_ids=[known.sep],
        pad=known.pad, suppress_tokens=sorted(known.structural_ids - {known.sep}),
    )  # fmt: skip
    for text, row in zip(texts, rows.splits["test"], strict=True):
        question = row[: rows.source_columns]
        question = jnp.array(question[question >= 0][None])
        actual = search(params, Batch(question, jnp.ones(question.shape, bool)))
        alone = known.decode(actual.tokens[0, 0, : int(actual.lengths[0, 0])].tolist())
        assert text == " ".join(alone.split())
    output = json.loads((whole / "decode" / "done.json").read_text())["metrics"]["models"][
        "student"
    ]
    assert output["splits"]["test"]["answer_beam"] == answer_match(texts, rows.references("test"))


def place_of(rows, folder) -> Workspace:
    actual = Workspace.__new__(Workspace)  # no run around it
    actual.__dict__.update(rows=rows, folder=folder, seed=0)
    return actual


def test_right_answers_are_learned_and_else_the_references(workspace, whole, tmp_path, monkeypatch):
    rows = experiment(workspace).data.open(workspace / "cache")
    known, count = rows.tokenizer, len(rows.splits["train"])
    output = rows.references("train")

    def ids(text):
        return [*known.encode([text])[0].tolist(), known.sep]

    other = [f"Well, {one[0].split('####')[1].strip()} it is. ####" for one in output]
    wrote = [
        [
            ids(output[0][0] + "1"),
            ids("So #### " + output[0][0].split("#### ")[1]),
        ],  # second is right
        [ids("#### 999"), ids(other[1])],  # none is
        *([ids("#### 999"), ids("no")] for _ in range(count - 2)),
    ]
    tokens = np.zeros((count, 2, 40), np.int32)
    lengths = np.zeros((count, 2), np.int32)
    for i, row in enumerate(wrote):
        for j, each in enumerate(row):
            tokens[i, j, : len(each)], lengths[i, j] = each, len(each)
    actual = dict(tokens=tokens, lengths=lengths, scores=np.zeros((count, 2), np.float32))
    monkeypatch.setattr(choose, "hypotheses", lambda workspace, source: actual)
    local = place_of(rows, tmp_path)
    left = Choose(how="right").run(local)
    assert left["right"] == pytest.approx(1 / count) and left["ended"] == 1
    with np.load(tmp_path / "targets.npz") as stored:
        targets = stored["targets"]
    assert targets[0][targets[0] != NOTHING].tolist() == wrote[0][1]
    np.testing.assert_array_equal(targets[1:], rows.splits["train"][1:, rows.source_columns :])


@pytest.mark.parametrize(
    "stage, message",
    [
        (learner(terms=GKD | {"ce": HardLabels()}), r"terms \['ce'\].*its own samples"),
        (learner(on_policy=OnPolicy(share=2.0)), "on_policy.share is 2.0"),
        (learner(labels="labels"), "nothing is stored of what the student will write"),
    ],
)
def test_what_cannot_be_learned_of_own_words(tmp_path, stage, message):
    with pytest.raises(ValueError, match=message):
        stage.check()


def test_text_without_questions_has_no_own_words(tmp_path):
    from jaxkd.data.rows.text import CausalText

    arguments = dataclasses.replace(experiment(tmp_path, student=learner()), data=CausalText())
    with pytest.raises(ValueError, match="only Pairs and Instructions have a source"):
        runner.run(
            arguments, name="own", variant="test", command="pytest", workdir=tmp_path / "runs",
            cache=tmp_path,
        )  # fmt: skip
