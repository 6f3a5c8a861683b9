"""Targets a stage chose, in the place of the references a student would learn."""

import json

import numpy as np

from jaxkd.data.rows.pairs import PairRows
from jaxkd.runs.experiment import Workspace

FILE = "targets.npz"


def with_targets_of(workspace: Workspace, stage: str) -> PairRows:
    """The rows of the experiment, with the targets a `Choose` stage left for training."""
    folder = workspace.stage_folder(stage)
    told = json.loads((folder / "done.json").read_text())["fingerprint"]
    with np.load(folder / FILE) as stored:
        return workspace.rows.with_targets(stored["targets"], stored["sources"], told)
