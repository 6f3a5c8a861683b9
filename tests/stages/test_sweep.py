"""Sweep: every training is a sub-run, the best by the primary metric is kept."""

import dataclasses
import json

import numpy as np
import pytest

from configs import models
from jaxkd.data.rows.labelled import Labelled
from jaxkd.runs import runner
from jaxkd.runs.experiment import Experiment
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.models import load_model
from jaxkd.stages.sweep import Sweep
from jaxkd.stages.train import Train
from jaxkd.train.optimiser import AdamW
from tests.experiments import folders

SHAPE = dataclasses.replace(models.bert("tiny"), head="sequence_classification", layers=1)


def experiment(file, **sweep) -> Experiment:
    train = Train(
        source="random", steps=100, batch_size=8, evaluate_every=0, optimiser=AdamW(warmup=0.0)
    )
    settings = dict(learning_rates=(1e-7, 3e-3), batch_sizes=(16,))
    return Experiment(
        title="A sweep",
        data=Labelled(train=str(file), tokenizer="trained", trained_size=300, length=16),
        stages={
            "random": Initialise(model=SHAPE),
            "swept": Sweep(train=train, **(settings | sweep)),
        },
    )


def run(experiment, folder):
    return runner.run(
        experiment, name="sweep", variant="test", command="pytest", workdir=folder,
        cache=folder / "cache",
    )  # fmt: skip


def test_the_best_is_kept_and_nothing_runs_twice(tmp_path):
    folders.write_csv(tmp_path / "rows.csv", ["text", "label"], folders.reviews(80))
    folder = run(experiment(tmp_path / "rows.csv"), tmp_path)
    swept = folder / "0" / "swept"
    record = json.loads((swept / "done.json").read_text())
    tried = record["metrics"]["tried"]
    accuracies = {name: each["accuracy"] for name, each in tried.items()}
    assert set(accuracies) == {"rate_1e-07_batch_16", "rate_0.003_batch_16"}
    best = record["metrics"]["best"]
    assert accuracies[best] == max(accuracies.values()) > min(accuracies.values())
    assert best == "rate_0.003_batch_16"  # with 1e-7 nothing is learned in 100 steps
    kept, of_best = load_model(swept)[1], load_model(swept / best)[1]
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(
            kept["head"]["classify"][name], of_best["head"]["classify"][name]
        )

    before = {f: f.stat().st_mtime_ns for f in folder.rglob("done.json")}
    wider = experiment(tmp_path / "rows.csv", learning_rates=(1e-7, 3e-3, 1e-3))
    run(experiment(tmp_path / "rows.csv"), tmp_path)
    assert {f: f.stat().st_mtime_ns for f in folder.rglob("done.json")} == before
    run(wider, tmp_path)
    record = json.loads((swept / "done.json").read_text())
    assert len(record["metrics"]["tried"]) == 3


@pytest.mark.parametrize(
    "change", [dict(learning_rates=()), dict(batch_sizes=(8, 8)), dict(learning_rates=(0.0,))]
)
def test_what_cannot_be_swept_is_refused(change, tmp_path):
    with pytest.raises(ValueError, match="learning_rates|batch_sizes"):
        experiment(tmp_path / "rows.csv", **change).check()
