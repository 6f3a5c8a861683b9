"""The runner: what is skipped, what is redone, what is refused; and what a finished run leaves."""

import gc
import json
import pathlib
import sys

import chex
import jax
import numpy as np
import pytest

from jaxkd.checkpoint import layerwise
from jaxkd.checkpoint.series import Series
from jaxkd.runs import runner
from jaxkd.runs.experiment import Report
from jaxkd.stages.export import Export
from jaxkd.stages.models import check_vocabulary, load_model
from jaxkd.train import loop
from jaxkd.train.loop import NotFinite
from jaxkd.train.optimiser import AdamW
from tests.stages import small


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small.write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(corpus, cache, tmp_path):
    def go(**changes) -> pathlib.Path:
        return runner.run(
            small.experiment(corpus, **changes),
            name="small",
            variant="test",
            command="pytest",
            workdir=tmp_path,
            cache=cache,
        )

    return go


def finished(folder) -> dict[str, str]:
    """Stage -> when it was finished."""
    return {f.parent.name: f.stat().st_mtime_ns for f in (folder / "0").glob("*/done.json")}


def test_a_run_leaves_what_the_readme_says(run, corpus, cache):
    folder = run()
    assert set(finished(folder)) == {
        "teacher_init",
        "teacher",
        "student_init",
        "student",
        "evaluate",
    }
    for file in ("results.json", "report.md", "report.html", "log.txt"):
        assert (folder / file).stat().st_size > 100
    newest = Series(folder / "0/student/checkpoint").latest()
    assert newest.name == "00000008"
    parts = {p.name for p in newest.iterdir() if p.is_dir()}
    assert parts == {"embed", "block_00", "head", "model", "state", "data"}
    assert len(layerwise.load_json(newest, "data")["validation_losses"]) == 2

    teacher_config, teacher = load_model(folder / "0/teacher")
    _, student_init = load_model(folder / "0/student_init")
    _, student = load_model(folder / "0/student")
    data = small.experiment(corpus).data.open(cache)
    assert teacher_config.vocabulary == data.tokenizer.vocab_size
    jax.tree.map(np.testing.assert_array_equal, student_init["blocks"][0], teacher["blocks"][0])
    # Frozen as in DistilBERT: distillation leaves the positions as the teacher made them.
    np.testing.assert_array_equal(student["embed"]["position"], teacher["embed"]["position"])
    assert not np.allclose(student["embed"]["token"], teacher["embed"]["token"])

    rows = [json.loads(x) for x in (folder / "0/student/metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["split"] == "train"] == [2, 4, 6, 8]
    assert [r["step"] for r in rows if r["split"] == "validation"] == [6, 8]
    assert {"loss", "soft_targets", "mlm", "cosine", "grad_norm"} < set(rows[0])

    results = json.loads((folder / "results.json").read_text())
    output = results["models"]["student"]["seeds"]["0"]["validation"]
    assert {"loss", "perplexity", "accuracy", "kl", "agreement", "unigram"} <= set(output)
    np.testing.assert_allclose(output["perplexity"], np.exp(output["loss"]), rtol=1e-6)


@pytest.mark.slow
def test_a_second_run_does_nothing_and_a_changed_option_only_what_hangs_on_it(run):
    before = finished(run())
    assert finished(run()) == before
    student = finished(run(student_steps=6))
    assert (
        student["teacher"] == before["teacher"]
        and student["student_init"] == before["student_init"]
    )
    assert student["student"] > before["student"] and student["evaluate"] > before["evaluate"]
    teacher = finished(run(teacher_steps=10, student_steps=6))
    assert all(teacher[stage] > student[stage] for stage in set(teacher) - {"teacher_init"})
    # Back again: what the first run computed was put aside, not thrown away.
    assert finished(run()) == before


def test_a_loss_that_is_not_finite_stops_at_its_step_and_keeps_the_last_good_state(run):
    explosive = AdamW(learning_rate=1e30, warmup=0.0, decay="constant", clip=0.0)
    with pytest.raises(NotFinite, match=r"teacher: step [23] is not finite: .*learning_rate"):
        run(optimiser=explosive)


def test_a_misspelt_or_later_stage_is_an_error_before_any_work(run, corpus, tmp_path):
    experiment = small.experiment(corpus)
    experiment.stages["student"].teacher = "teecher"
    with pytest.raises(ValueError, match="'teecher', which is no stage. Did you mean 'teacher'"):
        experiment.check()
    experiment = small.experiment(corpus)
    experiment.stages["student_init"].source = "student"
    with pytest.raises(ValueError, match="reads 'student', which comes later"):
        experiment.check()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change, output",
    [
        (lambda e: setattr(e.stages["teacher_init"].model, "heads", 3), "not divisible by 3 heads"),
        (lambda e: setattr(e.stages["teacher"], "batch_size", 12), "does not divide over 8 device"),
        (lambda e: setattr(e.stages["teacher"], "layer_drop", 1.0), "layer_drop is 1.0"),
        (lambda e: setattr(e.stages["teacher"], "steps", 0), "steps is 0"),
        (
            lambda e: setattr(e.stages["student_init"], "keep", "every_otter"),
            "Did you mean 'every_oth",
        ),
        (lambda e: setattr(e.stages["evaluate"], "splits", ("a", "a")), "splits"),
        (lambda e: setattr(e, "seeds", (1, 1)), "each only once"),
    ],
)
def test_settings_that_cannot_work_are_named_before_any_work(corpus, change, output):
    experiment = small.experiment(corpus)
    change(experiment)
    with pytest.raises(ValueError, match=output):
        experiment.check()


def test_a_model_too_small_for_the_tokenizer_is_named(corpus, cache):
    tokenizer = small.experiment(corpus).data.open(cache).tokenizer
    rows = small.experiment(corpus).data.open(cache)
    config = small.experiment(corpus).stages["teacher_init"].model
    config.vocabulary = tokenizer.vocab_size - 1
    output = f"has {config.vocabulary} token embeddings, .* has {tokenizer.vocab_size} tokens"
    with pytest.raises(ValueError, match=output):
        check_vocabulary("teacher", config, None, rows)
    config.vocabulary += 64  # rows of padding are fine
    check_vocabulary("teacher", config, None, rows)


def test_two_runs_in_one_folder_are_refused(run, tmp_path):
    import fcntl

    folder = tmp_path / "small-test"
    folder.mkdir()
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match="another run is working in"):
            run()


@pytest.mark.slow
def test_a_stage_without_its_last_file_is_not_taken_for_finished(run):
    folder = run()
    done = folder / "0/student/done.json"
    kept = done.read_bytes()
    done.write_bytes(kept[: len(kept) // 2])
    before = finished(folder)
    after = finished(run())
    assert after["student"] > before["student"]
    assert after["teacher"] == before["teacher"]


def test_an_export_without_its_libraries_is_refused_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    with pytest.raises(ModuleNotFoundError, match=r"jaxkd\[onnx\]"):
        Export(model="student").check()


class Stops:
    """Asks the run to stop when it was asked `after` times."""

    def __init__(self, after: int):
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.slow
def test_a_polite_stop_is_heeded_between_stages_and_between_models(corpus, cache, tmp_path):
    def go(stopping=lambda: False):
        runner.run(
            small.experiment(corpus), name="small", variant="test", command="", workdir=tmp_path,
            cache=cache, stopping=stopping,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt, match="stopped before teacher_init; start again"):
        go(Stops(0))
    # asked once before each stage, after each of 12 + 8 steps, and before each evaluated model
    before_evaluation = 5 + 12 + 8
    with pytest.raises(KeyboardInterrupt, match="stopped before student was evaluated"):
        go(Stops(before_evaluation + 1))
    done = finished(tmp_path / "small-test")
    assert set(done) == {"teacher_init", "teacher", "student_init", "student"}
    go()
    assert finished(tmp_path / "small-test") | done == finished(tmp_path / "small-test")


@pytest.mark.slow
def test_a_scan_over_layers_trains_stops_and_resumes_as_the_loop_does(corpus, cache, tmp_path):
    """Its checkpoints hold the list; its optimiser holds the stack."""

    def go(name, scan, stopping=lambda: False):
        experiment = small.experiment(corpus)
        experiment.stages["teacher_init"].model.scan_layers = scan
        experiment.stages = {n: experiment.stages[n] for n in ("teacher_init", "teacher")}
        experiment.report = Report()
        return runner.run(
            experiment, name=name, variant="test", command="pytest", workdir=tmp_path,
            cache=cache, stopping=stopping,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt, match="stopped after step"):
        go("scan", True, Stops(5))
    _, scanned = load_model(go("scan", True) / "0/teacher")
    _, looped = load_model(go("loop", False) / "0/teacher")
    assert len(scanned["blocks"]) == 2
    chex.assert_trees_all_close(scanned, looped, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_a_sharded_training_has_no_array_whole_on_a_device(
    corpus, cache, tmp_path, monkeypatch, scan
):
    """Neither when it begins nor when it goes on; and it ends as one that was not stopped."""
    # What other tests left is none of this one's; held, so that no new array takes an old one's id.
    others = jax.live_arrays()
    known, live = {id(array) for array in others}, {}

    def look(run):
        def looking(step, state, *rest, **named):
            live["at the first step"] = [
                (array.shape, array.addressable_shards[0].data.size)
                for array in jax.live_arrays()
                if id(array) not in known
            ]
            return run(step, state, *rest, **named)

        return looking

    def go(workdir, stopping=lambda: False):
        experiment = small.experiment(corpus, teacher_steps=2)
        experiment.stages["teacher_init"].model.scan_layers = scan
        del experiment.stages["evaluate"]
        experiment.stages["student"].parallel = "sharded"
        experiment.report = Report()
        gc.collect()
        return runner.run(
            experiment, name="small", variant="test", command="pytest", cache=cache,
            workdir=tmp_path / workdir, stopping=stopping,
        )  # fmt: skip

    def check():
        shapes = live["at the first step"]
        assert len(shapes) > 20
        for shape, share in shapes:
            if any(n % jax.device_count() == 0 and n > 0 for n in shape):
                assert share * jax.device_count() == np.prod(shape), shape

    monkeypatch.setattr(loop, "run", look(loop.run))
    expected = go("at once") / "0"
    check()
    stops = Stops(5)
    with pytest.raises(KeyboardInterrupt, match="stopped after step"):
        go("resumed", lambda: (tmp_path / "resumed/small-test/0/student").is_dir() and stops())
    resumed = go("resumed") / "0"
    check()
    (_, actual), (_, at_once) = (load_model(folder / "student") for folder in (resumed, expected))
    jax.tree.map(np.testing.assert_array_equal, actual, at_once)
