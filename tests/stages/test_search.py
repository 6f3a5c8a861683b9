"""A search as a stage: it resumes, shares, records failures, and leaves the best shape."""

import dataclasses
import json
import os
import pathlib
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.stored_targets import Hidden
from jaxkd.distil.depth import influence, most_influential
from jaxkd.distil.layer_terms import AttentionMaps, CosineHidden, HiddenStates
from jaxkd.distil.teacher import teacher_outputs
from jaxkd.models import families, llama
from jaxkd.models.albert import Config as Albert
from jaxkd.models.bert import Config
from jaxkd.models.model import forward
from jaxkd.runs import runner
from jaxkd.search.candidates import ShortDistillation, Starts
from jaxkd.search.latency import Latency
from jaxkd.search.teacher_states import TeacherStates, layers_of, share_of
from jaxkd.stages.models import load_model
from jaxkd.stages.search import Search
from jaxkd.train.optimiser import AdamW
from tests.models import tiny
from tests.processes import start_program
from tests.stages import searching, small
from tests.stages.test_killed import kill_when
from tests.xla import FAST_COMPILATION

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small.write_corpus(tmp_path_factory.mktemp("search") / "corpus")


def run(corpus, workdir, **settings):
    experiment = searching.get_config()
    experiment.data.dir = str(corpus)
    stage = experiment.stages["search"]
    experiment.stages["search"] = dataclasses.replace(stage, **settings)
    folder = runner.run(
        experiment, name="searching", variant="small", command="pytest", workdir=workdir,
        cache=corpus.parent / "cache",
    )  # fmt: skip
    return folder, json.loads((folder / "0" / "search" / "done.json").read_text())["metrics"]


def losses(metrics):
    return {each["key"]: each.get("loss") for each in metrics["search"]["candidates"]}


@pytest.fixture(scope="module")
def uninterrupted(corpus, tmp_path_factory):
    return run(corpus, tmp_path_factory.mktemp("whole"))


def test_the_best_shape_is_left_with_its_first_parameters_and_no_checkpoints_of_others(
    uninterrupted,
):
    folder, metrics = uninterrupted
    search = metrics["search"]
    complete = [each for each in search["candidates"] if each["state"] == "complete"]
    best = max(complete, key=lambda each: each["reward"])
    assert len(search["candidates"]) == 6 and search["best"] == best["key"]
    config, params = load_model(folder / "0" / "search", on_host=True)
    assert {name: getattr(config, name) for name in best["candidate"]} == best["candidate"]
    assert config.dropout == searching.SHAPE.dropout  # switched off in the search alone
    # Cut from the teacher: every row of the feed-forward is one of the teacher's.
    _, teacher = load_model(folder / "0" / "teacher", on_host=True)
    rows = np.concatenate(
        [block["feed_forward"]["contract"]["kernel"] for block in teacher["blocks"]]
    )
    for row in params["blocks"][0]["feed_forward"]["contract"]["kernel"]:
        assert (rows == row).all(1).any()
    assert not (folder / "0" / "search" / "teacher_states").exists()
    assert len(list((folder / "0" / "search" / "checkpoint").glob("[0-9]*[0-9]"))) == 1
    report = (folder / "report.md").read_text()
    assert "Search: search" in report and "best by hand" in report
    assert {1, 2, 3} == {e["candidate"]["layers"] for e in search["candidates"][:3]}  # by hand


def test_halving_stops_the_worse_and_only_whole_candidates_win(uninterrupted):
    candidates = uninterrupted[1]["search"]["candidates"]
    assert {each["state"] for each in candidates} == {"complete", "stopped"}
    steps = uninterrupted[1]["search"]["steps"]
    for each in candidates:
        assert (each["steps"] == steps) == (each["state"] == "complete")


@pytest.mark.slow
def test_a_killed_search_ends_in_the_same_bits(corpus, tmp_path):
    env = os.environ | {"JAXKD_CACHE": str(corpus.parent / "cache"), "XLA_FLAGS": FAST_COMPILATION}

    def start(workdir):
        words = [
            "run.py", "--config", "tests/stages/searching.py",
            f"--config.data.dir={corpus}", f"--workdir={tmp_path / workdir}",
        ]  # fmt: skip
        return start_program(words, ROOT, env)

    def finish(workdir):
        process = start(workdir)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        done = tmp_path / workdir / "searching-small" / "0" / "search" / "done.json"
        return json.loads(done.read_text())["metrics"]

    study = tmp_path / "killed" / "searching-small" / "0" / "search" / "study.journal"
    size = random.Random(0).randrange(1000, 4000)  # of the journal, in bytes
    # tests/search/test_study.py kills at ten moments; each is a process less of this size.
    kill_when(start("killed"), lambda: study.exists() and study.stat().st_size > size)
    killed, whole = finish("killed"), finish("whole")
    assert losses(killed) == losses(whole)
    assert killed["search"]["best"] == whole["search"]["best"]


def test_two_runs_share_a_study_and_end_with_the_same_best(corpus, uninterrupted, tmp_path):
    storage = str(tmp_path / "study.journal")
    _, first = run(corpus, tmp_path / "one", storage=storage)
    folder, second = run(corpus, tmp_path / "two", storage=storage)
    # The second found every candidate measured, and trained none.
    assert losses(first) == losses(second)
    assert second["search"]["best"] == first["search"]["best"] == uninterrupted[1]["search"]["best"]
    log = (folder / "log.txt").read_text()
    assert "search: the best of 6" in log
    # Another configuration is another study, in the same storage.
    _, other = run(corpus, tmp_path / "three", storage=storage, candidates=2)
    assert len(other["search"]["candidates"]) == 2


def test_a_candidate_that_fails_is_recorded_and_the_search_goes_on(corpus, tmp_path, monkeypatch):
    whole, failing = ShortDistillation.__call__, []

    def sometimes(self, config, params, *args):
        if config.layers == 2:
            failing.append(config)
            raise MemoryError("no room for it")
        return whole(self, config, params, *args)

    monkeypatch.setattr(ShortDistillation, "__call__", sometimes)
    folder, metrics = run(corpus, tmp_path, candidates=4)
    failed = [e for e in metrics["search"]["candidates"] if e["state"] == "failed"]
    assert len(failed) == len(failing) > 0
    assert all(each["reason"] == "MemoryError: no room for it" for each in failed)
    assert "no room for it" in (folder / "report.md").read_text()


def test_losses_that_are_not_finite_fail_their_candidates(corpus, tmp_path):
    with pytest.raises(ValueError, match="no candidate could be measured.*NotFinite"):
        run(corpus, tmp_path, candidates=2, optimiser=AdamW(learning_rate=1e30, clip=0.0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(terms={"maps": AttentionMaps()}), "stores the teacher's hidden states"),
        (dict(halving=1), "halving is 1"),
        (dict(max_time=0.5), "Set latency.fitted_on"),
        (dict(layers=(2, 9)), "ascending numbers from 1 to the teacher's 3"),
        (dict(max_parameters=10), "no candidate under parameters at most 10"),
        (dict(optimizer="grid"), "optimizer is 'grid'"),
        (dict(store_megabytes=1e-6), "raise `store_megabytes`"),
        (dict(latency=Latency(of="bundle", batch=2)), "a row at a time"),
    ],
)
def test_what_cannot_be_searched_is_refused(corpus, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        run(corpus, tmp_path, **wrong)


ENCODER = dict(vocabulary=61, layers=4, width=32, heads=4, feed_forward=48, max_length=24)
TEACHERS = {
    "bert": Config(**ENCODER),
    "albert": Albert(**ENCODER, embedding_width=16),
    "llama": llama.Config(**ENCODER, kv_heads=2, tied=True),
}


@pytest.mark.parametrize("start", ["teacher", "random"])
@pytest.mark.parametrize("family", TEACHERS)
def test_every_candidate_of_the_derived_space_can_be_made(family, start):
    teacher = TEACHERS[family]
    params = families.build(teacher).init(0)
    space = Search(teacher="teacher", start=start).space(teacher)
    starts = Starts(start, teacher, params, [tiny.batch(4, 10)], 0)
    draw = np.random.default_rng(0)
    for _ in range(6):
        config, made = starts.of(space.draw(draw))
        families.check_shapes(families.build(config), made, family)


def test_stored_states_are_the_teachers_and_give_the_same_terms(corpus, tmp_path):
    experiment = searching.get_config()
    experiment.data.dir = str(corpus)
    rows = experiment.data.open(corpus.parent / "cache")
    config = dataclasses.replace(searching.SHAPE, vocabulary=rows.tokenizer.vocab_size)
    model = families.build(config)
    params = model.init(1)
    terms = {"hidden": HiddenStates(layer_map="both"), "cosine": CosineHidden(layer_map="skip")}
    layers = layers_of(terms, (1, 2), config.layers)
    data = TeacherStates(
        tmp_path / "states", "test", config, params, share_of(rows, 0.5), layers=layers, seed=0,
        batch_size=8, validation_rows=8, most_megabytes=10.0,
    )  # fmt: skip
    assert layers == [1, 2, 3]
    batch = data.batch("train", 0)
    assert isinstance(batch.stored_targets, Hidden) and batch.stored_targets.states[0] is None
    batch = jax.tree.map(jnp.asarray, batch)
    stored = teacher_outputs(None, None, batch)
    live = forward(model, params, dataclasses.replace(batch, stored_targets=None))
    for layer in layers:
        np.testing.assert_allclose(stored.hidden[layer], live.hidden[layer], atol=1e-5)
    student = forward(families.build(families.with_layers(config, 2)), model_of(params, 2), batch)
    for name, term in terms.items():
        own = term.init(jax.random.key(0), student, live) if hasattr(term, "init") else ()
        np.testing.assert_allclose(
            term.total(student, stored, batch, own), term.total(student, live, batch, own),
            rtol=1e-4, err_msg=name,
        )  # fmt: skip
    # The variance is the squared distance of the best constant answer.
    states = [data.batch("validation", i) for i in range(1)]
    kept = np.concatenate([b.stored_targets.states[2][np.asarray(b.mask)] for b in states])
    assert data.variance(2) == pytest.approx(kept.astype(np.float64).var(0).mean(), rel=1e-6)


def model_of(params, layers):
    return params | {"blocks": params["blocks"][:layers]}


def test_matrices_solved_by_least_squares_are_the_best_linear_ones():
    model = families.build(TEACHERS["bert"])
    batch = tiny.batch(24, 10)
    teacher = forward(model, model.init(0), batch)
    short = families.build(families.with_layers(TEACHERS["bert"], 2))
    student = forward(short, short.init(5), batch)
    term = HiddenStates(layer_map="both")
    solved = term.solved(term.normal_equations(student, teacher, batch), ridge=0.0)
    kept = np.asarray(batch.mask).ravel()
    for n, (i, layers) in enumerate([(1, (2, 3)), (2, (4, 4))]):
        x = np.asarray(student.hidden[i]).reshape(-1, 32)[kept].astype(np.float64)
        y = np.concatenate([np.asarray(teacher.hidden[j]).reshape(-1, 32) for j in layers], -1)
        by_numpy = np.linalg.lstsq(x, y[kept].astype(np.float64), rcond=None)[0]
        residual = np.square(x @ by_numpy - y[kept]).sum()
        ours = np.square(x @ np.asarray(solved[n]["kernel"], np.float64) - y[kept]).sum()
        assert ours == pytest.approx(residual, rel=1e-2, abs=1e-4)


def test_a_block_that_does_nothing_is_the_least_influential():
    model = families.build(llama.Config(**ENCODER, kv_heads=2, tied=True))
    params = model.init(0)
    idle = params["blocks"][2]
    for part in ("attention", "feed_forward"):
        for name, leaf in idle[part].items():
            idle[part][name] = jax.tree.map(lambda x: 0.0 * x, leaf)
    scores = influence(model, params, [tiny.batch(4, 10)])
    assert scores[2] == pytest.approx(0.0, abs=1e-6) and most_influential(scores, 3) == [0, 1, 3]
