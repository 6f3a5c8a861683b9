"""Damaged files, changed minds, mismatches: refused or said, and nothing computed is lost."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from jaxkd.core.batch import Batch, check_batch
from jaxkd.core.describe import described
from jaxkd.data.rows.labelled import LabelledRows
from jaxkd.data.rows.masking import Masking
from jaxkd.data.rows.pairs import Pairs
from jaxkd.data.rows.text import MaskedText
from jaxkd.distil.terms import (
    AttentionMaps,
    CtcHypotheses,
    CtcLabels,
    FrameTargets,
    HardLabels,
    SoftTargets,
)
from jaxkd.models import bert, families
from jaxkd.runs import folders, runner
from jaxkd.runs.command import main
from jaxkd.runs.experiment import Experiment, check_data
from jaxkd.runs.fingerprint import fingerprint_of
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.models import align_labels, check_labels, load_model
from jaxkd.stages.train import Train
from tests.models import tiny
from tests.stages import small


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small.write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def go(corpus, cache, workdir, change=lambda e: e, **settings) -> pathlib.Path:
    return runner.run(
        change(small.experiment(corpus, **settings)),
        name="small", variant="test", command="pytest", workdir=workdir, cache=cache,
    )  # fmt: skip


def only_teacher(e: Experiment) -> Experiment:
    stages = {name: e.stages[name] for name in ("teacher_init", "teacher")}
    return Experiment(title=e.title, data=e.data, stages=stages)


# The fingerprint.


class MyKD(SoftTargets):
    """A user's own term with the fields of another."""


PAIRS = [
    (CtcLabels(), CtcHypotheses()), (HardLabels(), CtcLabels()),
    (SoftTargets(), FrameTargets()), (SoftTargets(), MyKD()),
]  # fmt: skip


def train_with(term) -> Train:
    return Train(source="a", teacher="b", terms={"it": term})


@pytest.mark.parametrize("one, other", PAIRS)
def test_two_terms_of_equal_fields_are_two_configurations(one, other):
    assert dataclasses.asdict(one) == dataclasses.asdict(other)
    earlier = {"a": "1", "b": "2"}
    prints = [fingerprint_of(train_with(term), 0, None, earlier) for term in (one, other)]
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    "change, same",
    [
        (dict(log_every=3), True), (dict(save_every=7), True), (dict(parallel="jitted"), True),
        (dict(chunk=64), True), (dict(tensor=2), True),
        (dict(steps=7), False), (dict(patience=1), False), (dict(accumulate=2), False),
        (dict(evaluate_rows=8), False), (dict(masking=Masking(share=0.4)), False),
    ],
)  # fmt: skip
def test_fields_that_change_no_result_are_no_part_of_the_fingerprint(change, same):
    one, other = Train(source="a"), Train(source="a", **change)
    prints = [fingerprint_of(stage, 0, None, {"a": "1"}) for stage in (one, other)]
    assert (prints[0] == prints[1]) is same


def test_chunks_of_an_evaluation_change_no_result_either():
    stages = Evaluate(models=("a",)), Evaluate(models=("a",), chunk=64)
    prints = [fingerprint_of(stage, 0, None, {"a": "1"}) for stage in stages]
    assert prints[0] == prints[1]


def test_what_cannot_be_seen_is_no_configuration():
    with pytest.raises(TypeError, match="cannot be part of a configuration"):
        described({"x": object()})


# Damaged files.


def test_a_finished_stage_whose_checkpoint_is_damaged_is_refused_and_can_go_on(
    corpus, cache, tmp_path
):
    folder = go(corpus, cache, tmp_path, only_teacher) / "0" / "teacher"
    newest = sorted((folder / "checkpoint").glob("0*.sha256.json"))[-1]
    expected = load_model(folder)[1]["embed"]["token"]
    target = newest.with_name(newest.name.split(".")[0])
    victim = max((f for f in target.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="finished stage 'teacher' left, is damaged"):
        load_model(folder)
    (folder / "done.json").unlink()  # as the message says
    go(corpus, cache, tmp_path, only_teacher)
    np.testing.assert_array_equal(load_model(folder)[1]["embed"]["token"], expected)


def test_a_damaged_log_changes_nothing_that_patience_decides(corpus, cache, tmp_path):
    def patient(e):
        e = only_teacher(e)
        e.stages["teacher"].evaluate_every, e.stages["teacher"].patience = 2, 1
        return e

    class Stops:
        def __init__(self, after):
            self.left = after

        def __call__(self):
            self.left -= 1
            return self.left < 0

    whole = go(corpus, cache, tmp_path / "whole", patient) / "0" / "teacher"
    with pytest.raises(KeyboardInterrupt):
        runner.run(
            patient(small.experiment(corpus)), name="small", variant="test", command="",
            workdir=tmp_path / "cut", cache=cache, stopping=Stops(2 + 5),
        )  # fmt: skip
    folder = tmp_path / "cut" / "small-test" / "0" / "teacher"
    log = folder / "metrics.jsonl"
    log.write_bytes(b"\xff damaged\n")
    go(corpus, cache, tmp_path / "cut", patient)
    done = [json.loads((at / "done.json").read_text()) for at in (folder, whole)]
    for name in ("steps", "best_step", "note"):
        assert done[0]["metrics"][name] == done[1]["metrics"][name]
    assert "validation loss was chosen on that split" in done[0]["metrics"]["note"]
    models = [load_model(at)[1]["embed"]["token"] for at in (folder, whole)]
    np.testing.assert_array_equal(*models)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"stage": 1}', "\x00\xff"])
def test_a_folder_whose_config_is_damaged_is_put_aside(tmp_path, damage):
    folder, message = tmp_path / "teacher", []
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "weights").write_text("hours of work")
    (folder / "config.json").write_bytes(damage.encode("latin-1"))
    folders.prepare(folder, "abc", message.append)
    aside = tmp_path / "replaced" / "teacher-unreadable-1"
    assert (aside / "checkpoint" / "weights").read_text() == "hours of work"
    assert not list(folder.iterdir()) and str(aside) in message[0]


def test_another_configuration_is_put_aside_with_a_word_and_comes_back(tmp_path):
    folder, message = tmp_path / "saved", []
    folders.prepare(folder, "one", message.append)
    folders.write_json({"fingerprint": "one"}, folder / "config.json")
    (folder / "export").write_text("one")
    folders.prepare(folder, "two", message.append)
    assert message == [
        f"saved: the results of another configuration were moved to "
        f"{tmp_path / 'replaced' / 'saved-one'}; they come back when it is run again"
    ]
    folders.write_json({"fingerprint": "two"}, folder / "config.json")
    folders.prepare(folder, "one", message.append)
    assert (folder / "export").read_text() == "one"


# Mismatches, before any work.


LABELS = ("negative", "positive")


def rows_of(labels: tuple[str, ...] = LABELS, form: str = "classification") -> LabelledRows:
    """Rows without content, of which only the labels are looked at."""
    kind = type("Rows", (LabelledRows,), {"form": form, "labels": labels})
    return kind.__new__(kind)


def classifier(labels):
    config = dataclasses.replace(
        tiny.config(), head="sequence_classification", labels=tuple(labels)
    )
    return config, families.build(config).init(0)


def test_classes_are_put_in_the_datas_order_by_name():
    config, params = classifier(["Positive", "NEGATIVE"])
    message = []
    aligned, changed = align_labels("it", config, params, LABELS, message.append)
    assert aligned.labels == ("negative", "positive") and "data's order" in message[0]
    for old, new in zip(
        params["head"]["classify"].values(), changed["head"]["classify"].values(), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(new), np.asarray(old)[..., ::-1])


def test_numbered_classes_in_another_order_are_names_like_any_other():
    config, params = classifier(["LABEL_1", "LABEL_0"])
    data = ("LABEL_0", "LABEL_1")
    with pytest.raises(ValueError, match="LABEL_0"):
        check_labels("it", config, rows_of(data))
    aligned, changed = align_labels("it", config, params, data, lambda message: None)
    assert aligned.labels == data
    old, new = (np.asarray(p["head"]["classify"]["kernel"]) for p in (params, changed))
    np.testing.assert_array_equal(new, old[:, ::-1])


def test_what_to_do_about_other_classes_depends_on_their_number():
    for own, named in ((["good", "bad"], True), (["a", "b", "c"], False)):
        for check in (
            lambda c, p: align_labels("it", c, p, LABELS),
            lambda c, p: check_labels("it", c, rows_of()),
        ):
            with pytest.raises(ValueError, match="new_classifier=True") as error:
                check(*classifier(own))
            assert ("STAGE.labels=" in str(error.value)) == named


@pytest.mark.parametrize("labels", [["good", "bad"], ["a", "b", "c"], ["negative", "neutral"]])
def test_other_classes_are_refused_with_both_lists(labels):
    config, params = classifier(labels)
    for check in (
        lambda: align_labels("it", config, params, LABELS),
        lambda: check_labels("it", config, rows_of()),
    ):
        with pytest.raises(ValueError, match="'negative', 'positive'") as error:
            check()
        assert all(repr(label) in str(error.value) for label in labels)


def test_a_regression_head_and_classes_are_refused_both_ways():
    with pytest.raises(ValueError, match="which is a regression head"):
        check_labels("it", classifier(["LABEL_0"])[0], rows_of())
    with pytest.raises(ValueError, match=r"numbers as labels \(regression\)"):
        check_labels("it", classifier(["a", "b"])[0], rows_of((), "regression"))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda e: setattr(e.stages["teacher"], "freeze", ("nothing/*",)), "fits no parameter"),
        (
            lambda e: e.stages["student"].terms["cosine"].__setattr__("layer_map", "0:9"),
            "layer_map has the pair",
        ),
        (lambda e: setattr(e.stages["student_init"], "keep", "0,7"), "keep='0,7' names block"),
        (lambda e: setattr(e.stages["evaluate"], "splits", ("test", "more")), "splits"),
        (
            lambda e: setattr(e.stages["teacher_init"].model, "head", "sequence_classification"),
            "with the head sequence_classification does not predict",
        ),
    ],
)
def test_models_and_terms_that_do_not_fit_are_refused_before_the_first_stage(
    corpus, cache, tmp_path, change, message
):
    def changed(e):
        change(e)
        return e

    with pytest.raises(ValueError, match=message):
        go(corpus, cache, tmp_path, changed)
    assert not list(tmp_path.rglob("config.json"))


def test_splits_are_those_of_the_opened_data(corpus, cache, tmp_path, monkeypatch):
    whole = MaskedText.open

    def without_test(self, cache):
        rows = whole(self, cache)
        splits = {name: part for name, part in rows.splits.items() if name != "test"}
        return dataclasses.replace(rows, splits=splits)

    monkeypatch.setattr(MaskedText, "open", without_test)

    def on_test(e):
        e.stages["evaluate"] = Evaluate(models=("teacher",), splits=("test",))
        return e

    with pytest.raises(ValueError, match="splits has 'test'; the data .* train, validation"):
        go(corpus, cache, tmp_path, on_test)
    assert not list(tmp_path.rglob("config.json"))


def test_a_folder_that_would_not_be_read_is_refused():
    with pytest.raises(ValueError, match="data.dir is '/x' and data.origin is 'embedded'"):
        check_data(MaskedText(dir="/x", origin="embedded"))
    check_data(Pairs(dir="/x"))


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(terms={"kd": SoftTargets()}), r"terms \['kd'\] and teacher is empty"),
        (dict(teacher="b"), "and no terms: it would teach nothing"),
        (dict(teacher_dtype="int8"), "teacher_dtype='int8' and teacher is empty"),
        (
            dict(teacher="b", terms={"maps": AttentionMaps()}, layer_drop=0.1),
            r"layer_drop=0.1 and terms \['maps'\]",
        ),
    ],
)
def test_a_teacher_and_its_terms_come_together(settings, message):
    with pytest.raises(ValueError, match=message):
        Train(source="a", batch_size=16, **settings).check()


def test_dropout_of_the_classifier_alone_is_dropout():
    none = dict(dropout=0.0, attention_dropout=0.0, classifier_dropout=0.1)
    assert bert.Config(head="sequence_classification", **none).drops
    assert not bert.Config(head="masked_lm", **none).drops
    assert bert.Config(head="masked_lm", **(none | dict(activation_dropout=0.1))).drops


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(targets=np.array([[1, -100]])), "targets hold the id -100; ids are 0 to 60"),
        (dict(targets=np.array([[1, 61]])), "targets hold the id 61"),
        (dict(tokens=np.array([[1, 99]])), "tokens hold the id 99"),
        (dict(target_mask=None), "the batch has no target_mask"),
        (dict(target_mask=np.array([True])), r"target_mask \(1,\)"),
    ],
)
def test_a_batch_that_cannot_be_learned_says_why(change, message):
    ids, mask = np.array([[1, 2]]), np.ones((1, 2), bool)
    whole = dict(tokens=ids, mask=mask, targets=ids, target_mask=mask)
    check_batch(Batch(**whole), tokens=61)
    ignored = np.array([[True, False]])
    check_batch(
        Batch(**(whole | dict(targets=np.array([[1, -100]]), target_mask=ignored))), tokens=61
    )
    with pytest.raises(ValueError, match=message):
        check_batch(Batch(**(whole | change)), tokens=61)


# The command line.

FILE = """
from __future__ import annotations
import dataclasses
from jaxkd.runs.experiment import Experiment

@dataclasses.dataclass
class Note:
    times: int = 3  # how often
    def inputs(self): return ()
    def check(self): pass
    def run(self, workspace): {}

def get_config(variant: str = "one"):
    return Experiment(title="Note", data=None, stages={{"note": Note()}})
"""


def test_a_file_with_postponed_annotations_has_flags(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(FILE.format("return {}"))
    assert main(["run.py", "--config", str(file), "--config.stages.note.times=5", "--show"]) == 0
    assert "--config.stages.note.times=5  # int: how often" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error", ["{}['x']", "None.x", "math.exp(1e9)", "raise_(Exception('odd'))"]
)
def test_no_error_of_a_stage_ends_in_a_traceback(tmp_path, capsys, error):
    file = tmp_path / "mine.py"
    body = "import math; raise_ = lambda e: (_ for _ in ()).throw(e); " + error
    file.write_text(FILE.format("pass").replace("def run(self, workspace): pass",
                                                f"def run(self, workspace): {body}"))  # fmt: skip
    assert main(["run.py", "--config", str(file), "--workdir", str(tmp_path / "runs")]) == 1
    output = capsys.readouterr().out
    assert "Traceback" not in output and "mine.py, line" in output
