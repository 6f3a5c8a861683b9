"""Write a model for others to open: a HuggingFace folder and ONNX files, verified and measured."""

import dataclasses
import pathlib
import shutil
import time
from typing import Any

import numpy as np

from jaxkd.core.names import did_you_mean
from jaxkd.core.ranges import field
from jaxkd.evaluate.predictions import make_evaluate, make_score
from jaxkd.export.bundle.files import annotate
from jaxkd.export.bundle.format import Bundle
from jaxkd.export.formats import Format, HuggingFace, Onnx, Predict
from jaxkd.metrics.metric import Metric
from jaxkd.models import families
from jaxkd.models.families import Config
from jaxkd.models.model import Params
from jaxkd.runs.experiment import Workspace
from jaxkd.stages.bundles import companions_of, measure_exits, measure_memory
from jaxkd.stages.evaluate import check_splits
from jaxkd.stages.models import load_model
from jaxkd.stages.task import primary_metric

BATCH = 8  # rows at a time, all logits of which exist at once
ROUNDS = 3  # of timing; the median counts


def _formats() -> dict[str, Format]:
    return {"huggingface": HuggingFace(), "onnx": Onnx(), "onnx_int8": Onnx(weights="int8")}


def with_bundles() -> dict[str, Format]:
    """All formats: a folder for transformers, files for onnxruntime, and bundles for a device."""
    return _formats() | {"bundle": Bundle(), "bundle_int8": Bundle(weights="int8")}


@dataclasses.dataclass
class Export:
    """Files of one model, each format in the folder of its name within the stage's.

    Each is opened by the library it is for and must do what our model does; otherwise the stage
    fails. Both are compared in float32, whatever the model computes in. int8 cannot be equal: it
    is scored on a split, and kept only if the task's primary metric loses at most `max_loss`.
    """

    model: str  # stage
    formats: dict[str, Format] = dataclasses.field(default_factory=_formats)
    skip: tuple[str, ...] = ()  # names of formats that are not written
    tolerance: float = 1e-4  # largest absolute difference of a logit
    split: str = "validation"  # that int8 is scored on
    scored_rows: int = field(512, at_least=0)  # of it; 0: all
    max_loss: float = field(0.5, at_least=0)  # hundredths of the metric: points, of a fraction
    timed_rows: int = field(32, at_least=1)  # one at a time
    # Stage whose calibration of early exits goes into bundles; "": none.
    calibration: str = ""

    def inputs(self) -> tuple[str, ...]:
        return (self.model, *([self.calibration] if self.calibration else []))

    def check(self) -> None:
        """Raise if a format cannot be written here: now, not after hours of training."""
        for name in self.skip:
            if name not in self.formats:
                raise ValueError(f"skip={self.skip}: {did_you_mean(name, self.formats)}")
        for name in self.formats:
            if not name or name != name.strip() or "/" in name or name.startswith("."):
                raise ValueError(f"formats: {name!r} is no name of a folder.")
        if not 0 < self.tolerance < float("inf"):
            raise ValueError(f"tolerance is {self.tolerance}; it must be above 0 and finite.")
        for each in self._written().values():
            each.check()

    def check_config(self, configs: dict[str, Config | None], rows: Any) -> None:
        """Raise ValueError if a format cannot hold the model, before any training."""
        scored = [name for name, each in self._written().items() if not _exact(each)]
        if scored and rows is None:
            raise ValueError(
                f"formats {', '.join(scored)}: what int8 loses is measured on data, and this "
                "experiment has none. Leave them out: "
                f'--config.stages.export.skip="{tuple(scored)}".'
            )
        if scored:
            check_splits((self.split,), rows)
        config = configs.get(self.model)
        if config is not None:
            for each in self._written().values():
                each.check(config)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        source = workspace.stage_folder(self.model)
        config, params = load_model(source, workspace.display.say)
        self.check_config({self.model: config}, workspace.rows)
        checked: dict[str, Any] = {}
        opened: dict[str, Predict] = {}
        for name, each in self._written().items():
            folder = workspace.folder / name
            companions = companions_of(workspace, self.model, config, self.calibration)
            written = each.write(folder, config, params, companions)
            verified = each.verify(folder, config, params, tolerance=self.tolerance)
            if "not_compared" in verified:
                workspace.display.say(
                    f"{name}: read back and equal; not compared with {verified['not_compared']}, "
                    "which is not installed."
                )
            checked[name] = verified | written
            if isinstance(each, Onnx | Bundle):
                opened[name] = each.open(folder, config)
        if workspace.rows is not None and opened:
            for name, measured in self._measure(workspace, config, params, opened).items():
                checked[name] |= measured
        for name, each in self._written().items():
            if isinstance(each, Bundle):
                checked[name] |= self._measure_bundle(workspace, config, workspace.folder / name)
            if not _exact(each):
                self._keep_or_remove(workspace, name, checked[name])
        for name, each in self._written().items():
            if isinstance(each, Bundle) and checked[name].get("kept", True):
                annotate(workspace.folder / name, "measured", checked)  # the table of all formats
                annotate(workspace.folder / name, "measured_as", name)
        return checked

    def _measure_bundle(
        self, workspace: Workspace, config: Config, folder: pathlib.Path
    ) -> dict[str, Any]:
        """Memory of a bundle's own process; with calibrated exits their curve."""
        if workspace.rows is None:
            return {}
        rows = workspace.rows.for_model(config)
        singles = list(rows.batches(self.split, 1, self.timed_rows))
        measured: dict[str, Any] = {"memory": measure_memory(folder, singles[0])}
        if config.exits and self.calibration:
            scored = list(rows.batches(self.split, 1, self.scored_rows))
            measured["exits"] = measure_exits(folder, scored, primary_metric(workspace))
        return measured

    def _measure(
        self, workspace: Workspace, config: Config, params: Params, opened: dict[str, Predict]
    ) -> dict[str, dict[str, Any]]:
        """Score of each file and of our model on the same rows; milliseconds a row."""
        metric, rows = primary_metric(workspace), workspace.rows.for_model(config)

        def batches() -> Any:
            return rows.batches(self.split, BATCH, self.scored_rows)

        float32 = dataclasses.replace(config, compute="float32")
        model = families.build(float32)
        evaluate = make_evaluate(model, None, (metric,))
        ours = evaluate(model.arrange(params), None, batches())[metric.name]
        single = list(rows.batches(self.split, 1, self.timed_rows))
        milliseconds = _milliseconds(opened, single)
        measured, scored = {}, make_score((metric,))
        for name, predict in opened.items():
            score = scored(predict, batches())[metric.name]
            measured[name] = {
                "metric": metric.name,
                "split": self.split,
                "rows": len(rows.order(self.split, self.scored_rows)),
                "ours": ours,
                "score": score,
                "lost": 100 * _lost(metric, ours, score),
                "milliseconds": milliseconds[name],
            }
            workspace.display.say(
                f"{workspace.name}: {name} {metric.title} {score:.4g}, ours {ours:.4g}, "
                f"{milliseconds[name]:.3g} ms a row"
            )
        return measured

    def _keep_or_remove(self, workspace: Workspace, name: str, checked: dict[str, Any]) -> None:
        """Remove the files of a format that loses too much, and say so."""
        checked["kept"] = bool(checked["lost"] <= self.max_loss)
        if checked["kept"]:
            return
        shutil.rmtree(workspace.folder / name)
        workspace.display.say(
            f"{workspace.name}: {name} loses {checked['lost']:.3g} hundredths of the metric "
            f"{checked['metric']!r}, allowed is {self.max_loss:g}: not written. "
            f"--config.stages.{workspace.name}.max_loss=... allows more."
        )

    def _written(self) -> dict[str, Format]:
        return {name: each for name, each in self.formats.items() if name not in self.skip}


def _exact(each: Format) -> bool:
    return getattr(each, "exact", True)


def _lost(metric: Metric, ours: float, score: float) -> float:
    """By how much a score is worse; nan (which no comparison passes) if it is none."""
    return score - ours if metric.higher_is_better is False else ours - score


def _milliseconds(opened: dict[str, Predict], batches: list[Any]) -> dict[str, float]:
    """Of one row, the files in turns: the median over rounds of the mean over rows."""
    for predict in opened.values():  # the first run of each width prepares memory
        for batch in batches:
            predict(batch)
    seconds: dict[str, list[float]] = {name: [] for name in opened}
    for _ in range(ROUNDS):
        for name, predict in opened.items():
            start = time.perf_counter()
            for batch in batches:
                predict(batch)
            seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * float(np.median(s)) / len(batches) for name, s in seconds.items()}
