"""Which models the stages will have, walked before the first of them runs."""

import pathlib
from collections.abc import Mapping
from typing import Any

from jaxkd.checkpoint import layerwise
from jaxkd.data.rows.base import Rows
from jaxkd.models import families
from jaxkd.runs.folders import finished

Configs = dict[str, families.Config | None]  # by stage; None: not known before it has run


def check_plan(
    stages: Mapping[str, Any],
    rows: Rows | None,
    folder: pathlib.Path,
    fingerprints: Mapping[str, str],
) -> Configs:
    """Check splits, models, heads, labels and terms of all stages that are still to run.

    Returns: the config of each stage's model; None where it has none, or it is not known yet.
    Raises:
      ValueError: names the stage and what does not fit.
    """
    configs: Configs = {}
    for name, stage in stages.items():
        try:
            configs[name] = planned(stage, configs, rows, folder / name, fingerprints[name])
        except ValueError as error:
            raise ValueError(f"stage {name!r}: {error}") from error
        if finished(folder / name, fingerprints[name]) is None:
            check_one(name, stage, configs, rows)
    return configs


def planned(
    stage: Any, configs: Configs, rows: Rows | None, folder: pathlib.Path, fingerprint: str
) -> families.Config | None:
    """The config of the model the stage left, or will leave."""
    record = finished(folder, fingerprint)
    if record is not None:
        return _stored(folder, record)
    return stage.plan(configs, rows) if hasattr(stage, "plan") else None


def check_one(name: str, stage: Any, configs: Configs, rows: Rows | None) -> None:
    """Check one stage against the opened data and the planned models."""
    splits = getattr(stage, "splits", ())
    try:
        if rows is not None:
            for split in splits:
                if split not in rows.splits:
                    raise ValueError(
                        f"splits has {split!r}; the data ({rows.corpus}) has the splits "
                        f"{', '.join(rows.splits)}."
                    )
        if hasattr(stage, "check_config"):
            stage.check_config(configs, rows)
    except ValueError as error:
        raise ValueError(f"stage {name!r}: {error}") from error


def _stored(folder: pathlib.Path, record: dict[str, Any]) -> families.Config | None:
    """The config beside a finished stage's checkpoint; None if it has none or is damaged."""
    if not record.get("checkpoint"):
        return None
    try:
        return families.from_description(
            layerwise.load_json(folder / record["checkpoint"], "model")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # opening the model says what is wrong with it
