"""Targets a stage chose, in the place of the references a student would learn."""

import json

import numpy as np

from jaxkd.data.pairs import PairRows
from jaxkd.stages.experiment import Place

FILE = "targets.npz"


def with_chosen(place: Place, stage: str) -> PairRows:
    """The rows of the experiment, with the targets a `Choose` stage left for training."""
    folder = place.beside(stage)
    told = json.loads((folder / "done.json").read_text())["fingerprint"]
    with np.load(folder / FILE) as stored:
        return place.rows.with_targets(stored["targets"], stored["sources"], told)
