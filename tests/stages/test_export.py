"""An int8 file is scored on data; one that loses more than is allowed is not left behind."""

import dataclasses
import json

import pytest

from jaxkd.device import cli as device
from jaxkd.evaluate import measures
from jaxkd.export.bundle.format import Bundle
from jaxkd.export.formats import HuggingFace, Onnx
from jaxkd.metrics import classes
from jaxkd.runs.runner import run
from jaxkd.stages.export import Export, _lost
from tests.stages import small


@dataclasses.dataclass
class Negated(Onnx):
    """A file whose logits are turned round before they are scored."""

    def open(self, folder, config):
        predict = super().open(folder, config)
        return lambda batch: -predict(batch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("export")
    experiment = small.experiment(small.write_corpus(place / "corpus"), teacher_steps=4)
    del experiment.stages["student"], experiment.stages["evaluate"]
    experiment.stages["export"] = Export(
        model="teacher",
        formats={
            "onnx": Onnx(),
            "onnx_int8": Onnx(weights="int8"),
            "seven": Onnx(weights="int8", bits=7),
            "negated": Negated(weights="int8"),
            "bundle": Bundle(),
            "static": Onnx(weights="int8_static"),
            "half": Onnx(compute="float16"),
        },
        max_loss=5.0,
        scored_rows=10,
        timed_rows=2,
    )
    experiment.report = dataclasses.replace(experiment.report, curves=(), comparisons=())
    run(
        experiment, name="small", variant="export", command="", workdir=place / "runs",
        cache=place / "cache",
    )  # fmt: skip
    folder = place / "runs" / "small-export" / "0" / "export"
    return folder, json.loads((folder / "done.json").read_text())["metrics"]


def test_a_file_that_loses_too_much_is_removed_and_its_numbers_stay(finished):
    folder, measured = finished
    assert measured["negated"]["kept"] is False and measured["negated"]["lost"] > 5.0
    assert not (folder / "negated").exists()
    assert measured["negated"]["megabytes"] > 0


def test_what_is_kept_was_scored_beside_our_model_on_the_same_rows(finished):
    folder, measured = finished
    for name in ("onnx_int8", "seven"):
        assert measured[name]["kept"] is True and (folder / name / "model.onnx").is_file()
    for name, each in measured.items():
        assert each["rows"] == 10 and each["metric"] == "loss" and each["milliseconds"] > 0
        assert each["ours"] == measured["onnx"]["ours"]
        assert each["lost"] == pytest.approx(100 * (each["score"] - each["ours"])), name
    assert measured["onnx"]["score"] == pytest.approx(measured["onnx"]["ours"], abs=1e-5)
    assert (
        measured["onnx_int8"]["max_abs_difference"]
        > 1e-4
        > (measured["onnx"]["max_abs_difference"])
    )
    assert measured["seven"]["bits"] == 7 and "kept" not in measured["onnx"]


def test_a_bundle_has_the_table_of_all_formats_and_its_own_memory(finished):
    folder, measured = finished
    manifest = json.loads((folder / "bundle" / "manifest.json").read_text())
    assert manifest["measured"] == measured
    memory = measured["bundle"]["memory"]
    assert len(memory["by_layer"]) == manifest["model"]["layers"]
    assert memory["memory"]["peak"] > 10 and memory["memory_least"]["peak"] > 10
    assert measured["bundle"]["score"] == pytest.approx(measured["bundle"]["ours"], abs=1e-5)
    assert device.main(["--selftest"], folder / "bundle") == 0


def test_fixed_scales_are_calibrated_on_training_rows_and_both_are_kept(finished):
    folder, measured = finished
    for name in ("static", "half"):
        assert measured[name]["kept"] is True and (folder / name / "model.onnx").is_file()
        assert 0 < measured[name]["max_abs_difference"]
    assert measured["static"]["bits"] in (7, 8)


def test_a_loss_is_worse_where_it_is_higher_and_an_accuracy_where_it_is_lower():
    assert _lost(measures.LOSS, 2.0, 2.5) == _lost(classes.ACCURACY, 0.75, 0.25) == 0.5
    assert not _lost(measures.LOSS, 2.0, float("nan")) <= 100.0


def test_int8_without_data_to_score_it_on_is_refused_before_work():
    stage = Export(model="student")
    with pytest.raises(ValueError, match=r"onnx_int8: .*measured on data.*skip=\"\('onnx_int8',\)"):
        stage.check_config({}, None)
    Export(model="student", skip=("onnx_int8",)).check_config({}, None)
    Export(model="student", formats={"huggingface": HuggingFace()}).check_config({}, None)


@pytest.mark.parametrize(
    "changes, message",
    [(dict(weights="int4"), "weights='int4'.*float32"), (dict(bits=6), "bits is 6; it is 7, 8")],
)
def test_kinds_of_weights_that_there_are_not_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Export(model="student", formats={"onnx": Onnx(**changes)}).check()
