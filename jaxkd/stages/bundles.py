"""What the export stage gives a bundle besides the model, and measures of it in its own runner."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd.core.batch import Batch
from jaxkd.evaluate.predictions import make_score
from jaxkd.exits.stopping import Calibration
from jaxkd.export.bundle.format import Exits, bench
from jaxkd.export.formats import Companions
from jaxkd.metrics.metric import Metric
from jaxkd.models.families import Config
from jaxkd.runs.experiment import Workspace
from jaxkd.stages import tokenizer
from jaxkd.stages.exits import Calibrated, open_calibration
from jaxkd.stages.generate import ending

CALIBRATION_ROWS = 256  # by which fixed scales of int8 are set
PRICES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # quality that the time of all blocks is worth


def companions_of(workspace: Workspace, model: str, config: Config, calibration: str) -> Companions:
    """The tokenizer, how a text ends, what optimal stopping was calibrated with, training rows."""
    rows, policies, calibration_batches = workspace.rows, None, None
    if rows is not None:
        own = rows.for_model(config)

        def calibration_batches() -> Iterable[Batch]:
            return own.batches("train", 8, CALIBRATION_ROWS)

    if calibration:
        policies = policies_of(open_calibration(workspace.stage_folder(calibration)))
        calibrated, exits = len(policies["quality"]), len(config.exits) + 1
        if calibrated != exits:
            raise ValueError(
                f"stage {workspace.name!r}: {calibration!r} calibrated {calibrated} exits, and "
                f"{model!r} has {exits}, the head included. Calibrate that model."
            )
    return Companions(
        tokenizer.saver(workspace.stage_folder(model), rows),
        generation(rows, config),
        policies,
        calibration_batches,
    )


def generation(rows: Any, config: Config) -> dict[str, Any]:
    """Ids that end what the model writes, and those it never writes; {} where it writes nothing."""
    if rows is None or config.head not in ("causal_lm", "seq2seq_lm"):
        return {}
    if not hasattr(rows, "target_beginning"):
        return {"eos_ids": [int(rows.tokenizer.sep)]}
    tokens = ending(config, rows.for_model(config))
    return {name: [int(number) for number in ids] for name, ids in tokens.items()}


def policies_of(calibrated: Calibrated) -> dict[str, Any]:
    """What a runner solves optimal stopping from, as JSON."""
    calibration: Calibration = calibrated.calibration
    arrays = {
        "edges": calibration.edges,
        "quality": calibration.chain.quality,
        "moves": calibration.chain.moves,
        "milliseconds": np.diff(calibrated.milliseconds, prepend=0.0),
        "slowest": calibrated.slowest,
    }
    listed = {name: np.asarray(array, float).tolist() for name, array in arrays.items()}
    return listed | {"tolerance": calibration.tolerance}


def measure_exits(
    folder: pathlib.Path, batches: Sequence[Batch], metric: Metric
) -> list[dict[str, Any]]:
    """Score, milliseconds and blocks of a bundle with exits for each price, a row at a time."""
    runner, points, scored = Exits(folder), [], make_score((metric,))
    for batch in batches[:3]:  # the first runs prepare memory
        runner(batch, 0.0)
    for price in PRICES:
        blocks: list[float] = []
        times: list[float] = []

        def predict(
            batch: Batch, price: float = price, blocks: Any = blocks, times: Any = times
        ) -> np.ndarray:
            logits, used, milliseconds = runner(batch, price)
            blocks.append(float(np.mean(used)))
            times.append(milliseconds)
            return logits

        score = scored(predict, batches)[metric.name]
        means = {"milliseconds": float(np.mean(times)), "blocks": float(np.mean(blocks))}
        points.append({"price": price, "score": score, **means})
    return points


def measure_memory(folder: pathlib.Path, batch: Batch) -> dict[str, Any]:
    """Megabytes of the runner's own process with all weights in memory, and under least memory.

    `by_layer` are megabytes after each block of one text, a layer in memory at a time.
    """
    row = np.asarray(batch.tokens)[0][np.asarray(batch.mask)[0]].tolist()
    everything = bench(folder, [row])
    least = bench(folder, [row], "--window")
    return {
        "memory": _megabytes(everything["memory"]),
        "memory_least": _megabytes(least["memory"]),
        "by_layer": [[i, *_parts(a, f)] for i, a, f in least.get("memory_by_layer", ())],
        "milliseconds_least": least["milliseconds"]["p50"],
        "milliseconds_resident": everything["milliseconds"]["p50"],
    }


def _megabytes(memory: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: None if each is None else each / 1e6 for name, each in memory.items()}


def _parts(*values: Any) -> list[float | None]:
    return [None if each is None else each / 1e6 for each in values]
