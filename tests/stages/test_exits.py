"""Stages of early exit: what they keep, what they measure, and what they refuse before any work."""

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments.early_exit import get_config
from jaxkd.data.rows.labelled import Labelled
from jaxkd.distil.schedule import Cycle
from jaxkd.distil.terms import AtExits, HardLabels
from jaxkd.exits import rules, stopping
from jaxkd.export.bundle.format import Bundle
from jaxkd.models.bert import Config
from jaxkd.runs import runner
from jaxkd.runs.display import Display
from jaxkd.runs.experiment import Experiment, Workspace
from jaxkd.runs.plan import check_one
from jaxkd.stages.bundles import companions_of
from jaxkd.stages.evaluate_exits import EvaluateExits
from jaxkd.stages.exits import AddExits, Calibrate, open_calibration
from jaxkd.stages.export import Export
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.models import load_model
from jaxkd.stages.train import Train

OFTEN = dict(batch_size=16, log_every=10, save_every=10, evaluate_rows=32)


def table(file, rows=300):
    """Two kinds of sentences, which differ by a word."""
    draw = np.random.default_rng(0)
    with open(file, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label"))
        for i in range(rows):
            words = draw.choice(["one", "two", "red", "sea", "sun"], 5)
            writer.writerow((f"{' '.join(words)} {('good', 'bad')[i % 2]} {i}", "ab"[i % 2]))
    return str(file)


def data(file, **more):
    return Labelled(
        train=file, tokenizer="trained", trained_size=300, length=16, shortest=16, calibration=20,
        **more,
    )  # fmt: skip


def experiment(file, **more):
    shape = Config(
        layers=3, width=16, heads=2, feed_forward=32, max_length=16, head="sequence_classification"
    )
    terms = {"exits": AtExits(term=HardLabels())}
    return Experiment(
        title="Early exit",
        data=data(file),
        stages={
            "full": Initialise(model=shape),
            "exits_init": AddExits(source="full"),
            "shared": AddExits(source="full", pooler="shared"),
            "random": AddExits(source="full", start="random"),
            # Only the exits learn: the second stage of DeeBERT.
            "exits": Train(
                source="exits_init", terms=terms, steps=20,
                freeze=("embed/*", "blocks/*", "head/*"), **OFTEN,
            ),
            "calibrate": Calibrate(source="exits", bins=2, timed_rows=2, rounds=1),
            "early_exit": EvaluateExits(
                model="exits", calibration="calibrate", full="full", timed_rows=4, rounds=1,
                batch_sizes=(1, 4), skip=("distance", "confident_patience", "entropy"),
                confidence=(0.6,), prices=(0.0, 100.0),
            ),
            "export": Export(
                model="exits", calibration="calibrate", formats={"bundle": Bundle()},
                timed_rows=2, scored_rows=8,
            ),
        } | more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exits")
    made = experiment(table(folder / "rows.csv"))
    where = dict(name="exits", variant="small", command="", cache=folder / "cache")
    with pytest.MonkeyPatch.context() as patched:
        # Blocks of microseconds: what is measured of them is noise.
        patched.setattr("jaxkd.stages.exits.exit_milliseconds", lambda *_: np.arange(1.0, 4.0))
        runner.run(made, workdir=folder, **where)
    return folder / "exits-small"


def test_exits_are_added_and_nothing_else_changes(ran):
    (_, before), (config, after) = (load_model(ran / "0" / n) for n in ("full", "exits_init"))
    assert config.exits == (0, 1) and set(after) - set(before) == {"exit_00", "exit_01"}
    jax.tree.map(np.testing.assert_array_equal, before, {name: after[name] for name in before})
    for name in ("exit_00", "exit_01"):
        jax.tree.map(np.testing.assert_array_equal, after[name], before["head"])


def test_a_bundle_has_the_exits_and_their_calibration(ran):
    folder = ran / "0" / "export" / "bundle"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["heads"]) == ["head", "exit_00", "exit_01"]
    calibrated = open_calibration(ran / "0" / "calibrate")
    policies = manifest["policies"]
    assert policies["milliseconds"] == [1.0, 1.0, 1.0]
    np.testing.assert_array_equal(policies["edges"], calibrated.calibration.edges)
    np.testing.assert_array_equal(policies["quality"], calibrated.calibration.chain.quality)
    curve = manifest["measured"]["bundle"]["exits"]
    assert curve[0]["price"] == 0 and all(1 <= point["blocks"] <= 3 for point in curve)
    # The report has a section of it, with both plots.
    assert "On a device: export" in (ran / "report.md").read_text()
    for plot in ("memory-after-each-layer", "score-over-time-on-the-bundle"):
        assert (ran / f"export-{plot}.png").is_file()


def test_a_calibration_of_other_exits_is_refused(ran):
    workspace = Workspace(
        name="export", folder=ran / "0" / "export", seed=0, rows=None, stages={}, display=Display()
    )
    config, _ = load_model(ran / "0" / "full")
    with pytest.raises(ValueError, match="calibrated 3 exits, and 'full' has 1"):
        companions_of(workspace, "full", config, "calibrate")


def test_exits_can_share_the_heads_pooler_and_be_drawn_at_random(ran):
    head = load_model(ran / "0/full")[1]["head"]
    _, shared = load_model(ran / "0/shared")
    assert set(shared["exit_00"]) == {"classify"}
    jax.tree.map(np.testing.assert_array_equal, shared["exit_00"]["classify"], head["classify"])
    _, drawn = load_model(ran / "0/random")
    kernels = [drawn[name]["classify"]["kernel"] for name in ("exit_00", "exit_01", "head")]
    kernels = [np.asarray(kernel).tobytes() for kernel in kernels]
    assert len(set(kernels)) == 3  # each from a stream of its own


def test_exits_alone_learn_on_frozen_blocks(ran):
    (_, before), (_, after) = (load_model(ran / "0" / n) for n in ("exits_init", "exits"))
    for name in ("embed", "blocks", "head"):
        jax.tree.map(np.testing.assert_array_equal, before[name], after[name])
    for name in ("exit_00", "exit_01"):
        kernels = (tree[name]["classify"]["kernel"] for tree in (before, after))
        assert not np.array_equal(*kernels)


def test_what_a_setting_scores_is_what_its_exits_answer(ran):
    results = json.loads((ran / "results.json").read_text())
    measured = results["early_exit"]["early_exit"]["0"]
    assert measured["exits"] == [1, 2, 3] and measured["calibration_rows"] == 54  # 20% of 270
    assert measured["exit_milliseconds"] == [1, 2, 3]
    patience = {point["setting"]: point for point in measured["rules"]["patience"]}
    assert set(patience) == {"patience 1", "patience 2"}
    for points in measured["rules"].values():
        for point in points:
            assert sum(point["share"]) == pytest.approx(1)
            assert set(point["milliseconds"]) == {"1", "4"}
            assert min(point["milliseconds"].values()) > 0
    free, dear = measured["rules"]["optimal_stopping"]
    assert dear["share"] == [1, 0, 0]  # nothing is worth another block
    assert dear["score"] == pytest.approx(measured["exit_scores"][0])
    assert free["policy_quality"] >= dear["policy_quality"] - 1e-9
    report = (ran / "report.md").read_text()
    assert "Early exit: exits" in report and "calibrated on 54 rows" in report
    assert (ran / "early-exit-score-over-time.png").stat().st_size > 10_000


def test_calibration_rows_are_in_no_other_split(tmp_path):
    rows = data(table(tmp_path / "rows.csv")).open(tmp_path / "cache")
    texts = {split: set(each) for split, each in rows.dataset.splits.items()}
    assert {split: len(each) for split, each in texts.items()} == {
        "train": 216, "validation": 30, "calibration": 54,
    }  # fmt: skip
    assert len(set.union(*texts.values())) == 300
    whole = dataclasses.replace(data(str(tmp_path / "rows.csv")), calibration=0)
    without = whole.open(tmp_path / "cache").dataset.splits
    assert set(without["validation"]) == texts["validation"]
    assert any("20% of the training rows" in note for note in rows.dataset.notes)
    with pytest.raises(ValueError, match="data.calibration is 80.*0 to 50"):
        dataclasses.replace(whole, calibration=80).check()


REFUSED = [
    (dict(stage="early_exit", patience=(1, 3)), "patience is 3.*Allowed: 1 to 2"),
    (dict(stage="early_exit", prices=(-1.0,)), "prices.*-1.*at least 0"),
    (dict(stage="early_exit", confidence=(1.5,)), "confidence.*1.5.*at most 1"),
    (dict(stage="early_exit", calibration="exits"), "is no Calibrate stage of 'exits'"),
    (dict(stage="early_exit", split="calibration"), "says nothing on the same rows"),
    (dict(stage="early_exit", skip=("patients",)), "mean 'patience'"),
    (dict(stage="early_exit", model="full"), "is no Calibrate stage of 'full'"),
    (dict(stage="calibrate", split="train"), "--config.data.calibration=10"),
    (dict(stage="calibrate", bins=40), "54 rows .* at least 1000 are needed .* at most 2 bins"),
    (dict(stage="exits_init", blocks=(2,)), "ascending blocks from 0 to 1"),
    (dict(stage="exits_init", source="exits"), "comes later"),
    (dict(stage="exits", terms={}), "no term trains them"),
    (dict(stage="exits", patience=2), "the head of 'exits_init' is frozen"),
]  # fmt: skip


@pytest.mark.parametrize("change, message", REFUSED)
def test_what_cannot_work_is_refused_before_any_stage_runs(tmp_path, change, message):
    made = experiment(table(tmp_path / "rows.csv"))
    change = dict(change)
    stage = made.stages[change.pop("stage")]
    for name, value in change.items():
        setattr(stage, name, value)
    with pytest.raises(ValueError, match=message):
        runner.run(
            made, name="exits", variant="small", command="", workdir=tmp_path / "runs",
            cache=tmp_path / "cache",
        )  # fmt: skip
    assert not list((tmp_path / "runs").rglob("done.json"))


def test_without_rows_for_calibration_it_says_how_to_get_them(tmp_path):
    rows = dataclasses.replace(data(table(tmp_path / "rows.csv")), calibration=0)
    with pytest.raises(ValueError, match="no rows are held out for it. Set --config.data.calib"):
        check_one("calibrate", Calibrate(source="exits"), {}, rows.open(tmp_path / "cache"))


def test_a_model_without_exits_is_not_calibrated(tmp_path):
    rows = data(table(tmp_path / "rows.csv")).open(tmp_path / "cache")
    with pytest.raises(ValueError, match="'full' leaves a model without early exits"):
        check_one("calibrate", Calibrate(source="full", bins=2), {"full": Config()}, rows)


def test_terms_can_take_turns():
    head, exits = HardLabels(ramps={"weight": Cycle()}), AtExits()
    exits.ramps["weight"] = Cycle(values=(0.0, 1.0))
    for step in range(4):
        weights = [float(term.ramps["weight"].at(step)) for term in (head, exits)]
        assert weights == ([1, 0] if step % 2 == 0 else [0, 1])
    with pytest.raises(ValueError, match="a Cycle has at least one value, and no steps"):
        Cycle(steps=(0, 1)).check("terms.exits.ramps.weight")


def test_the_experiment_takes_a_backbone_a_task_or_a_table_of_ones_own():
    made = get_config("bert-stsb")
    made.resolve()
    assert made.task.primary == "pearson" and made.stages["student_short_init"].keep == "evenly 6"
    assert made.report.labels["student_short"] == "student of 6 blocks, distilled"
    kinds = {type(term.term).__name__ for term in made.stages["exits"].terms.values()}
    assert kinds == {"SquaredError"}
    own = get_config("mini")
    own.data.train = "reviews.csv"
    own.resolve()
    assert own.task is None and own.title == "Early exit: reviews.csv"
    with pytest.raises(ValueError, match="mean 'mrpc'"):
        get_config("mini-mrcp")
    with pytest.raises(ValueError, match="mean 'mini'"):
        get_config("mimi")


def test_a_stored_calibration_gives_the_same_rule(ran):
    calibrated = open_calibration(ran / "0" / "calibrate")
    calibration = calibrated.calibration
    assert calibration.chain.quality.shape == (3, 4)
    assert calibrated.slowest.shape == (3,) and (np.diff(calibrated.slowest) >= 0).all()
    rule = calibration.rule(stopping.solve(calibration.chain, np.ones(3), 1e9))
    assert isinstance(rule, rules.OptimalStopping) and rule.edges.shape == (3, 1)
    assert rule.table.all()
