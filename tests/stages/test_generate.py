"""A teacher's own sentences as targets: written once, resumed, chosen, learned."""

import dataclasses
import json
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.data.rows.pairs import Pairs
from jaxkd.decode.beam import Beam, searcher
from jaxkd.distil.terms import HardLabels, SoftTargets
from jaxkd.metrics.text import bleu, sentence_bleu
from jaxkd.models import families
from jaxkd.report import tables
from jaxkd.runs import runner
from jaxkd.runs.experiment import Reference, Report
from jaxkd.stages.choose import Choose, drawn
from jaxkd.stages.decode import Decode
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.models import load_model
from jaxkd.stages.train import Train
from tests.stages.written import ROWS, STEPS, experiment, generate


def run(workspace, workdir="runs", stopping=lambda: False, change=lambda e: e, **stages):
    return runner.run(
        change(experiment(**stages)), name="written", variant="test", command="pytest",
        workdir=workspace / workdir, cache=workspace / "cache", stopping=stopping,
    ) / "0"  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("generate")


@pytest.fixture(scope="module")
def whole(workspace):
    """All that a teacher's sentences are for, in one run."""
    output = Reference("BLEU", 20.0, "teacher", "test", "bleu_beam")
    return run(
        workspace,
        change=lambda e: dataclasses.replace(e, report=Report(references=(output,), split="test")),
        generated=generate(),
        best=Choose(source="generated"),
        closest=Choose(source="generated", how="closest"),
        every=Choose(source="generated", how="n_best"),
        student=Train(source="student_init", targets="best", steps=3, **STEPS),
        both=Train(
            teacher="teacher", source="student_init", targets="closest", steps=3, chunk=32,
            terms={"kd": SoftTargets(), "ce": HardLabels()}, **STEPS,
        ),
        evaluate=Evaluate(models=("teacher", "student"), splits=("test",), batch_size=8),
        decode=Decode(
            models=("teacher",), beam=Beam(width=2, max_tokens=12), batch_size=8,
            metrics=("bleu", "chrf", "rouge", "exact"), timed=3,
        ),
    )  # fmt: skip


def opened(workspace):
    return experiment().data.open(workspace / "cache")


def chosen(folder, name):
    with np.load(folder / name / "targets.npz") as stored:
        return stored["targets"], stored["sources"]


def search(workspace, folder, width, n_best, rows):
    """What a search of one device finds for these rows."""
    config, params = load_model(folder / "teacher")
    known = opened(workspace).tokenizer
    suppress_tokens = sorted(known.structural_ids - {known.sep})
    beam = Beam(width=width, n_best=n_best, max_tokens=12)
    find = searcher(families.build(config), config, beam, eos_ids=[known.sep], pad=known.pad,
                    suppress_tokens=suppress_tokens)  # fmt: skip
    batch = opened(workspace).sources(rows)
    return find(params, Batch(jnp.array(batch.tokens), jnp.array(batch.mask)))


def test_the_best_targets_are_what_the_search_finds(workspace, whole):
    targets, sources = chosen(whole, "best")
    np.testing.assert_array_equal(sources, np.arange(ROWS))
    actual = search(workspace, whole, 3, 3, opened(workspace).splits["train"])
    for row, tokens, length in zip(targets, actual.tokens, actual.lengths, strict=True):
        assert row[row >= 0].tolist() == tokens[0, : int(length[0])].tolist()


def test_the_closest_targets_are_nearest_the_references(workspace, whole):
    rows = opened(workspace)
    targets, _ = chosen(whole, "closest")
    actual = search(workspace, whole, 3, 3, rows.splits["train"])
    decode, output = rows.tokenizer.decode, rows.references("train")
    means = []
    for i, row in enumerate(targets):
        each = [
            sentence_bleu(decode(tokens[: int(n)].tolist()), output[i])
            for tokens, n in zip(actual.tokens[i], actual.lengths[i], strict=True)
        ]
        means.append(max(each))
        assert sentence_bleu(decode(row[row >= 0]), output[i]) == pytest.approx(max(each))
    metrics = json.loads((whole / "closest" / "done.json").read_text())["metrics"]
    assert metrics["sentence_bleu"] == pytest.approx(np.mean(means))


def test_a_text_alone_is_timed_once_everything_is_compiled(workspace, whole):
    output = json.loads((whole / "decode" / "done.json").read_text())["metrics"]["models"][
        "teacher"
    ]
    assert all(
        output["splits"]["test"][f"latency_{strategy}"] > 0 for strategy in ("greedy", "beam")
    )
    rows, seen = opened(workspace), []

    def write(_, batch):
        """Takes its time for what it has not seen, and 20 ms for what it has."""
        known = batch.tokens.tobytes() in seen
        seen.append(batch.tokens.tobytes())
        time.sleep(0.02 if known else 0.2)
        return batch.tokens

    took = Decode(models=("teacher",), timed=3)._latency(rows, "test", write, None)
    assert 20 <= took < 100
    assert len(seen) == 6 and all(len(one) == len(seen[0]) for one in seen)
    longest = rows.lengths(rows.splits["test"])[:, 0]
    read = [int((np.frombuffer(one, np.int32) != rows.tokenizer.pad).sum()) for one in seen]
    away = np.sort(np.abs(longest - np.median(longest)))[:3]
    np.testing.assert_array_equal(np.sort(np.abs(np.array(read[:3]) - np.median(longest))), away)


def test_beside_the_original_stands_what_was_decoded(whole):
    results = json.loads((whole.parent / "results.json").read_text())
    output = json.loads((whole / "decode" / "done.json").read_text())["metrics"]["models"][
        "teacher"
    ]
    assert not tables.references(results).rows  # a stand-in is not the original's corpus
    results["data"] |= {"embedded": False, "corpus": results["data"]["expected_corpus"]}
    (row,) = tables.references(results).rows
    assert row[1] == "20"
    assert float(row[2]) == pytest.approx(output["splits"]["test"]["bleu_beam"], rel=1e-3)


def test_hypotheses_come_as_often_as_the_teacher_thinks_them_likely():
    shares = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    scores = np.array([[-1.0, -2.0, -3.0], [-1.0, -1e9, -1e9]])
    log_probability = np.log(np.maximum(shares, 1e-30)) - 4.0
    counts = np.zeros((2, 3))
    for seed in range(2000):
        sources, which = drawn(log_probability, scores, seed)
        np.testing.assert_array_equal(sources, [0, 0, 0, 1, 1, 1])
        np.add.at(counts, (sources, which), 1)
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), shares, atol=0.01)


def test_all_hypotheses_are_rows_of_their_source(workspace, whole):
    targets, sources = chosen(whole, "every")
    assert len(targets) == 3 * ROWS
    np.testing.assert_array_equal(sources, np.repeat(np.arange(ROWS), 3))
    actual = search(workspace, whole, 3, 3, opened(workspace).splits["train"])
    for row, source in zip(targets, sources, strict=True):
        several = zip(actual.tokens[source], actual.lengths[source], strict=True)
        assert row[row >= 0].tolist() in [t[: int(n)].tolist() for t, n in several]


def test_a_student_learns_the_chosen_targets(workspace, whole):
    """Of an experiment whose own targets are these, it becomes the same."""
    targets, _ = chosen(whole, "best")
    rows = opened(workspace).with_targets(targets, np.arange(ROWS), "by hand")

    class Given(Pairs):
        def open(self, cache):
            return rows

    def arguments(e):
        return dataclasses.replace(e, data=Given(**dataclasses.asdict(e.data)))

    stages = dict(student=Train(source="student_init", steps=3, **STEPS))
    by_hand = run(workspace, "by hand", change=arguments, **stages)
    # Its teacher learned other targets: the student is to start from the same as before.
    shutil.rmtree(by_hand / "student_init" / "checkpoint")
    shutil.copytree(whole / "student_init" / "checkpoint", by_hand / "student_init" / "checkpoint")
    shutil.rmtree(by_hand / "student")
    _, actual = load_model(run(workspace, "by hand", change=arguments, **stages) / "student")
    _, expected = load_model(whole / "student")
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    _, start = load_model(whole / "student_init")
    moved = np.abs(np.asarray(start["embed"]["token"]) - np.asarray(actual["embed"]["token"]))
    assert moved.max() > 1e-6


def test_interrupted_and_resumed_it_writes_the_same_bits(workspace, whole):

    def present():
        return [path.name for path in (workspace / "again").rglob("*.arrayrecord")]

    with pytest.raises(KeyboardInterrupt, match="within a shard"):
        run(workspace, "again", stopping=lambda: bool(present()), generated=generate())
    assert present() == ["targets-00000.arrayrecord"]
    folder = run(workspace, "again", generated=generate())
    for one in sorted((whole / "generated" / "store").iterdir()):
        other = folder / "generated" / "store" / one.name
        if one.suffix == ".arrayrecord":
            assert other.read_bytes() == one.read_bytes()


def test_bleu_is_of_the_texts_that_are_kept(workspace, whole):
    output = json.loads((whole / "decode" / "done.json").read_text())["metrics"]["models"][
        "teacher"
    ]
    rows = opened(workspace)
    for strategy in ("greedy", "beam"):
        texts = (whole / "decode" / f"teacher.test.{strategy}.txt").read_text().splitlines()
        assert output["splits"]["test"][f"bleu_{strategy}"] == bleu(texts, rows.references("test"))
    actual = search(workspace, whole, 1, 1, rows.splits["test"])
    texts = (whole / "decode" / "teacher.test.greedy.txt").read_text().splitlines()
    for text, tokens, length in zip(texts, actual.tokens, actual.lengths, strict=True):
        spelt = rows.tokenizer.decode(tokens[0, : int(length[0])].tolist())
        assert text == " ".join(spelt.split())


def test_both_measures_of_a_model_stand_in_the_results(whole):
    results = json.loads((whole.parent / "results.json").read_text())
    test = results["models"]["teacher"]["seeds"]["0"]["test"]
    assert {"loss", "bleu_greedy", "bleu_beam", "rougeL_beam"} <= set(test)
    assert results["models"]["teacher"]["layers"] == 2


@pytest.mark.parametrize(
    "stages, message",
    [
        (dict(generated=generate(beam=Beam(max_tokens=65))), "room for data.write=64"),
        (dict(generated=generate(batch_size=12)), "must be a multiple of the 8 devices"),
        (dict(best=Choose(source="teacher")), "is no Generate stage"),
        (dict(student=Train(source="student_init", targets="teacher")), "is no Choose stage"),
        (dict(generated=generate(), c=Choose(how="bset")), "Did you mean 'best'"),
        (dict(decode=Decode(models=("teacher",), metrics=("blue",))), "Did you mean 'bleu'"),
    ],
)
def test_what_cannot_go_together_is_refused_before_anything_runs(tmp_path, stages, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **stages)
    assert not (tmp_path / "runs").exists()
