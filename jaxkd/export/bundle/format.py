"""The format `Bundle`: written, checked by its own runner, opened as a function of batches."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import numpy as np

from jaxkd.core.batch import Batch
from jaxkd.device.bundle import Bundle as Runner
from jaxkd.device.rules import optimal
from jaxkd.export.bundle.files import annotate
from jaxkd.export.bundle.write import parts_of, write_bundle
from jaxkd.export.emit.kinds import Int8, weights_of
from jaxkd.export.emit.whole import check_export
from jaxkd.export.extra import extra
from jaxkd.export.formats import NOTHING, Companions, Predict
from jaxkd.export.verify import ExportMismatch
from jaxkd.models.families import Config
from jaxkd.models.model import Params

BENCH = ("--bench", "--seconds", "1")


@dataclasses.dataclass
class Bundle:
    """A folder that runs the model layer by layer on a small device: see `write_bundle`."""

    weights: str = "float32"  # as of Onnx
    bits: int = 0

    @property
    def exact(self) -> bool:
        """Whether its numbers are our model's; else what it loses has to be measured."""
        return self.weights == "float32"

    def check(self, config: Config | None = None) -> None:
        for library in ("onnx", "onnxruntime"):
            extra(library)
        weights_of(self.weights, self.bits)
        if config is not None:
            check_export(config)

    def write(
        self, folder: pathlib.Path, config: Config, params: Params, companions: Companions = NOTHING
    ) -> dict[str, Any]:
        weights = weights_of(self.weights, self.bits)
        shutil.rmtree(folder, ignore_errors=True)
        write_bundle(
            folder, config, parts_of(config, params), weights,
            save_tokenizer=companions.save_tokenizer, generation=companions.generation,
            policies=companions.policies,
        )  # fmt: skip
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        written: dict[str, Any] = {"megabytes": size / 1e6}
        return written | ({"bits": weights.bits} if isinstance(weights, Int8) else {})

    def verify(
        self, folder: pathlib.Path, config: Config, params: Params, *, tolerance: float
    ) -> dict[str, Any]:
        """Run its reference; what int8 and float16 lose is measured elsewhere."""
        runner = Runner(folder)
        difference = runner.reference_difference()
        if self.exact and not difference <= tolerance:
            raise ExportMismatch(
                f"{folder}: the bundle's logits differ from ours by {difference:.3g}, allowed is "
                f"{tolerance:g}."
            )
        if self.exact:
            annotate(folder, "reference", {**runner.manifest["reference"], "tolerance": tolerance})
        with np.load(folder / "reference.npz") as arrays:
            shape = arrays["tokens"].shape
        return {
            "onnxruntime": extra("onnxruntime").__version__,
            "shapes": [list(shape)],
            "max_abs_difference": difference,
        }

    def open(self, folder: pathlib.Path, config: Config) -> Predict:
        """A function from a batch to the bundle's logits at its targets."""
        runner = Runner(folder)

        def predict(batch: Batch) -> np.ndarray:
            logits = runner.answers(arrays_of(batch))["head"]
            if batch.target_positions is None:
                return logits
            return np.take_along_axis(logits, np.asarray(batch.target_positions)[..., None], axis=1)

        return predict


def arrays_of(batch: Batch) -> dict[str, np.ndarray]:
    """What the runner takes of a batch."""
    arrays = {}
    for name in ("tokens", "mask", "segments", "decoder_tokens"):
        value = getattr(batch, name)
        if value is not None:
            arrays[name] = np.asarray(value, np.int64)
    return arrays


def bench(folder: pathlib.Path, ids: list[list[int]], *more: str) -> dict[str, Any]:
    """What `run_device.py --bench` says in a process of its own, where memory is the runner's."""
    texts = [arg for row in ids for arg in ("--ids", ",".join(map(str, row)))]
    command = [sys.executable, str(folder / "run_device.py"), *BENCH, *texts, *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:2])} failed: {done.stderr[-500:]}")
    return json.loads(done.stdout)


class Exits:
    """A bundle with exits under rules of optimal stopping: one row at a time."""

    def __init__(self, folder: pathlib.Path):
        self.runner = Runner(folder)

    def __call__(self, batch: Batch, price: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Logits, blocks of each row, milliseconds."""
        arrays = arrays_of(batch)
        rule = optimal(self.runner.manifest["policies"], price)
        answer = self.runner.model(arrays["tokens"], arrays["mask"], arrays.get("segments"), rule)
        return answer.logits, answer.blocks, answer.milliseconds
