"""Targets that a stage chose, which a student learns instead of the references."""

import json
import zipfile

import numpy as np

from jaxkd.data.rows.pair_rows import PairRows
from jaxkd.runs.experiment import Workspace

FILE = "targets.npz"


def with_targets_of(workspace: Workspace, stage: str) -> PairRows:
    """The rows of the experiment, with the targets that a `Choose` stage left for training.

    Raises:
      ValueError: if the file of the targets is missing or damaged.
    """
    folder = workspace.stage_folder(stage)
    fingerprint = json.loads((folder / "done.json").read_text())["fingerprint"]
    try:
        with np.load(folder / FILE) as stored:
            targets, sources = stored["targets"], stored["sources"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{folder / FILE}, the targets that stage {stage!r} chose, cannot be read ({error}). "
            f"Delete {folder / 'done.json'} and start again: the stage then runs anew."
        ) from error
    return workspace.rows.with_targets(targets, sources, fingerprint)
