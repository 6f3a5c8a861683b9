"""The fingerprint of a stage: equal if and only if it would give the same result."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jaxkd.core.describe import described
from jaxkd.data.rows.base import Rows

# Of what stages leave behind; a higher one makes results of a lower one be computed again.
# 3: classes of terms, models and metrics are part of it; Train and Initialise.
FORMAT = 3


def fingerprint_of(
    stage: Any, seed: int, rows: Rows | None, earlier: Mapping[str, str], task: Any = None
) -> str:
    """16 hex digits of configuration (with the class of every part), seed, data and inputs.

    Args:
      earlier: fingerprints of the stages it may read, by name.
      task: the experiment's, if it is not the one that the data asks for.
    """
    content = {
        "format": FORMAT,
        "stage": described(stage),
        **({"depends": stage.depends()} if hasattr(stage, "depends") else {}),
        "seed": seed,
        "data": None if rows is None else rows.fingerprint,
        **({} if task is None else {"task": described(task)}),
        "inputs": [earlier[name] for name in stage.inputs()],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
