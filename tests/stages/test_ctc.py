"""CTC from end to end: hypotheses stored, learned, written; what does not fit is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.data.rows.masking import Masking
from jaxkd.data.rows.pairs import Pairs
from jaxkd.decode.beam import Beam
from jaxkd.decode.ctc import n_best
from jaxkd.distil.on_policy import OnPolicy
from jaxkd.distil.terms import CtcHypotheses, CtcLabels, FrameTargets, SoftTargets
from jaxkd.metrics.text import error_rate
from jaxkd.models import families
from jaxkd.models.bert import Config
from jaxkd.models.model import forward
from jaxkd.runs import runner
from jaxkd.runs.experiment import Experiment
from jaxkd.stages.decode import Decode
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.generate import Generate
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.label import Label
from jaxkd.stages.models import load_model
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train

STEPS = dict(batch_size=8, log_every=2, save_every=4, evaluate_every=100, evaluate_rows=8)
LABEL = dict(teacher="teacher", kind="hypotheses", n=3, width=4, batch_size=8)


def data(**changes) -> Pairs:
    arguments = dict(
        corpus="noisy_letters", trained_size=261, read=64, write=32, rows=24, shares=(0.5, 1.0),
        ctc=True,
    )  # fmt: skip
    return Pairs(**(arguments | changes))


def experiment(**stages) -> Experiment:
    model = Config(
        layers=2, width=16, heads=2, feed_forward=32, max_length=64, init_std=0.3, dropout=0.0,
        attention_dropout=0.0,
    )  # fmt: skip
    first = {
        "teacher_init": Initialise(model=model, unigram_bias=False),
        "teacher": Train(source="teacher_init", steps=4, **STEPS),
        "student_init": Prune(source="teacher"),
    }
    return Experiment(title="Spelt", data=data(), stages=first | stages)


def run(workspace, workdir="runs", **stages):
    return runner.run(
        experiment(**stages), name="spelt", variant="test", command="pytest",
        workdir=workspace / workdir, cache=workspace / "cache",
    ) / "0"  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("ctc")


@pytest.fixture(scope="module")
def whole(workspace):
    student = dict(teacher="teacher", source="student_init", steps=3, **STEPS)
    return run(
        workspace,
        spelt=Label(**LABEL),
        frames=Train(terms={"ctc": CtcLabels(), "frames": FrameTargets()}, **student),
        hypotheses=Train(
            terms={"ctc": CtcLabels(), "hypotheses": CtcHypotheses()}, labels="spelt", **student
        ),
        evaluate=Evaluate(models=("teacher", "hypotheses"), splits=("test",), batch_size=10),
        decode=Decode(
            models=("teacher",), metrics=("cer", "exact"), beam=Beam(width=3), batch_size=10
        ),
    )


def places(folder, rows, name="teacher"):
    """Log-probabilities at each position of each of these rows, one row at a time."""
    config, params = load_model(folder / name)
    model = families.build(config)
    alone = jax.jit(lambda batch: jax.nn.log_softmax(forward(model, params, batch).logits[0]))
    for row in rows:
        ids = row[None, : data().read]
        mask = ids >= 0
        yield np.array(alone(Batch(jnp.array(np.where(mask, ids, 0)), jnp.array(mask))))[mask[0]]


def test_a_students_first_loss_is_that_of_its_teachers_hypotheses(workspace, whole):
    """Written out again from the teacher itself, a row at a time, for the first batch."""
    rows = data().open(workspace / "cache")
    feed = rows.training(seed=0, batch_size=8, masking=Masking())
    batch = feed[0]
    _, params = load_model(whole / "student_init")
    config, _ = load_model(whole / "student_init")
    logits = forward(
        families.build(config), params, jax.tree.map(jnp.array, Batch(batch.tokens, batch.mask))
    ).logits
    train = rows.splits["train"]
    total = 0.0
    every = list(places(whole, train))
    for i in range(8):
        ids = batch.tokens[i][batch.mask[i]]
        number = next(
            n
            for n, row in enumerate(train)
            if row[: rows.source_columns][row[: rows.source_columns] >= 0].tolist() == [*ids]
        )
        output = n_best(every[number], width=4, n=3, labels=5)
        share = np.exp([value for _, value in output])
        share /= share.sum()
        for part, (spelling, _) in zip(share, output, strict=True):
            labels = torch_ctc(np.array(logits[i])[: len(ids)], spelling)
            total += part * labels
    first = json.loads((whole / "hypotheses" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["step"] == 2  # a window of two steps; so the first alone, by a run of one step
    again = run(
        workspace, "one step", spelt=Label(**LABEL),
        one=Train(teacher="teacher", source="student_init", labels="spelt", steps=1,
                   terms={"hypotheses": CtcHypotheses()}, **STEPS),
    )  # fmt: skip
    output = json.loads((again / "one" / "metrics.jsonl").read_text().splitlines()[0])
    np.testing.assert_allclose(output["hypotheses"], total / batch.target_mask.sum(), rtol=1e-4)


def torch_ctc(logits, labels):
    import torch

    return torch.nn.functional.ctc_loss(
        torch.tensor(logits).log_softmax(-1)[:, None], torch.tensor([list(labels)], dtype=int),
        [len(logits)], [len(labels)], blank=0, reduction="sum",
    ).item()  # fmt: skip


def test_what_is_written_is_what_the_places_spell(workspace, whole):
    rows = data().open(workspace / "cache")
    test = rows.splits["test"]
    output = json.loads((whole / "decode" / "done.json").read_text())["metrics"]["models"][
        "teacher"
    ]
    texts = (whole / "decode" / "teacher.test.beam.txt").read_text().split("\n")[: len(test)]
    decoded = []
    for text, log_p in zip(texts, places(whole, test), strict=True):
        spelling = n_best(log_p, width=3, n=1, labels=4)[0][0]
        decoded.append(rows.tokenizer.decode(list(spelling)))
        assert text == " ".join(decoded[-1].split())
    references = [[rows.tokenizer.normalise(x) for x in each] for each in rows.references("test")]
    expected = error_rate(decoded, references)
    np.testing.assert_allclose(output["splits"]["test"]["cer_beam"], expected, rtol=1e-6)


def test_the_loss_is_nats_a_label(workspace, whole):
    rows = data().open(workspace / "cache")
    test, total, labels = rows.splits["test"], 0.0, 0
    for row, log_p in zip(test, places(whole, test), strict=True):
        target = row[rows.source_columns :]
        target = target[target >= 0]
        total, labels = total + torch_ctc(log_p, target), labels + len(target)
    output = json.loads((whole / "evaluate" / "done.json").read_text())["metrics"]["models"]
    actual = output["teacher"]["splits"]["test"]
    np.testing.assert_allclose(actual["loss"], total / labels, rtol=1e-4)
    assert {"kl", "agreement"} <= set(output["hypotheses"]["splits"]["test"])


STUDENT = dict(teacher="teacher", source="student_init", steps=1, **STEPS)


@pytest.mark.parametrize(
    "stages, message",
    [
        (dict(s=Train(terms={"a": CtcHypotheses()}, **STUDENT)), "need stored hypotheses"),
        (dict(s=Train(terms={"a": SoftTargets()}, **STUDENT)), "do not fit data.ctc=True"),
        (dict(s=Train(terms={"a": CtcLabels()}, on_policy=OnPolicy(share=0.5), **STUDENT)),
         "no samples of its own"),
        (dict(spelt=Label(**(LABEL | {"kind": "states"}))), "hypotheses are of CTC data"),
        (dict(spelt=Label(**LABEL),
              s=Train(terms={"a": SoftTargets()}, labels="spelt", **STUDENT)),
         r"\['a'\] do not fit data.ctc=True"),
        (dict(spelt=Label(**LABEL),
              s=Train(terms={"a": FrameTargets()}, labels="spelt", **STUDENT)),
         r"terms \['a'\]: stored hypotheses serve only"),
        (dict(spelt=Label(**(LABEL | {"n": 5}))), "a beam of width=4 finds no more"),
        (dict(g=Generate(teacher="teacher", batch_size=8)), "made by a Label stage of kind"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_before_anything_runs(tmp_path, stages, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **stages)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(write=72), "labels are aligned to positions of the source"),
        (dict(joined=" so"), "it is not joined"),
        (
            dict(corpus="multi30k", origin="embedded", write=64, sentence="a b c d"),
            "row 1 of the train split has .* positions",
        ),
        (
            dict(corpus="multi30k", origin="embedded", write=64, sentence="aa"),
            "has 4 labels, 1 of them equal to the one before, and 4 positions",
        ),
        (dict(dir="somewhere"), "noisy letters is made by jaxkd itself"),
    ],
)
def test_data_that_ctc_cannot_learn(changes, message, tmp_path, monkeypatch):
    words = changes.get("sentence")
    changes = {name: value for name, value in changes.items() if name != "sentence"}
    if words:  # more labels than positions for them
        output = {k: [("ab", (words,))] * 3 for k in ("train", "validation", "test")}
        monkeypatch.setattr("jaxkd.data.corpora.pairs.reversed_prose", lambda: ("sentence", output))
        monkeypatch.setattr("jaxkd.data.sources.find._folder", lambda *_: (None, "not here"))
    with pytest.raises(ValueError, match=message):
        data(**changes).open(tmp_path)
