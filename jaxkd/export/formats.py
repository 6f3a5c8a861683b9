"""Formats a model is exported in: each can be asked whether it can, writes, and verifies itself."""

import dataclasses
import importlib.util
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxkd.core.batch import Batch
from jaxkd.export.emit.calibrated import Observed, StaticInt8, scales_of
from jaxkd.export.emit.islands import to_float16
from jaxkd.export.emit.kinds import Int8, weights_of
from jaxkd.export.emit.whole import check_export, has_cache
from jaxkd.export.extra import extra
from jaxkd.export.onnx_files import OnnxFiles
from jaxkd.export.onnx_model import check_size, export_onnx
from jaxkd.export.processor import int8_bits
from jaxkd.export.verify import verify_by_reading, verify_folder, verify_onnx
from jaxkd.hub import folder as hub
from jaxkd.models.families import Config
from jaxkd.models.model import Params

STATIC = StaticInt8.name

SaveTokenizer = Callable[[pathlib.Path], Any]
Predict = Callable[[Batch], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Companions:
    """What goes with a model's weights into its folder."""

    save_tokenizer: SaveTokenizer | None = None  # writes the tokenizer's files
    generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # eos_ids, ...
    # Of a model with exits: edges, tolerance, quality, moves, milliseconds and slowest.
    policies: Mapping[str, Any] | None = None
    # Rows by which fixed scales of int8 are calibrated.
    calibration_batches: Callable[[], Iterable[Batch]] | None = None


NOTHING = Companions()


@runtime_checkable
class Format(Protocol):
    """A way to write a model for others."""

    def check(self, config: Config | None = None) -> None:
        """Raise unless this format can be written here; with a config, of such a model.

        Raises:
          ModuleNotFoundError: a library is missing.
          ValueError: the format has no such family or head, or no model of that size.
        """

    def write(
        self,
        folder: pathlib.Path,
        config: Config,
        params: Params,
        companions: Companions = NOTHING,
    ) -> dict[str, Any]:
        """Write into a folder, which may be there; returns what the results say of it."""

    def verify(
        self, folder: pathlib.Path, config: Config, params: Params, *, tolerance: float
    ) -> dict[str, Any]:
        """Open what was written with the library it is for, and compare with our model.

        Raises:
          ExportMismatch: if the two differ.
        """


@dataclasses.dataclass
class HuggingFace:
    """A folder that transformers' `from_pretrained` opens, with the model's tokenizer.

    transformers' model computes with torch. Without torch the folder is read back and compared
    with the parameters, and the results say so.
    """

    def check(self, config: Config | None = None) -> None:
        if config is not None:
            hub.family_of(config).to_hub(config)

    def write(
        self,
        folder: pathlib.Path,
        config: Config,
        params: Params,
        companions: Companions = NOTHING,
    ) -> dict[str, Any]:
        shutil.rmtree(folder, ignore_errors=True)
        hub.save(folder, config, params, save_tokenizer=companions.save_tokenizer)
        return {"megabytes": (folder / "model.safetensors").stat().st_size / 1e6}

    def verify(
        self, folder: pathlib.Path, config: Config, params: Params, *, tolerance: float
    ) -> dict[str, Any]:
        if importlib.util.find_spec("torch") is None:
            return verify_by_reading(folder, config, params)
        return verify_folder(folder, config, params, tolerance=tolerance)


@dataclasses.dataclass
class Onnx:
    """ONNX files that take what the model's tokenizer gives: see `export_onnx`."""

    # "float32", "float16" (half the size), "int8" (a quarter, products of bytes), or "int8_static"
    # (with Q/DQ nodes of fixed scales, calibrated on training rows, which TensorRT takes)
    weights: str = "float32"
    # Or float16, with norms and softmax in float32: a file with its types, for TensorRT 11.
    compute: str = "float32"
    # Of int8 weights. 7 is exact on every processor, 8 not on x86 without VNNI; 0: what is exact
    # here (jaxkd/export/processor.py).
    bits: int = 0

    @property
    def exact(self) -> bool:
        """Whether its numbers are our model's; else what it loses has to be measured."""
        return self.weights == self.compute == "float32"

    def check(self, config: Config | None = None) -> None:
        for library in ("onnx", "onnxruntime"):
            extra(library)
        if self.weights != STATIC:
            weights_of(self.weights, self.bits)
        if self.compute not in ("float32", "float16"):
            raise ValueError(f"compute is {self.compute!r}; it is float32 or float16.")
        if self.compute == "float16" and self.weights != "float32":
            raise ValueError(
                f"compute='float16' stores float16 itself; weights={self.weights!r} does not go "
                "with it. Leave weights at 'float32'."
            )
        if config is not None:
            check_export(config)
            check_size(config)
            if not self._one_pass(config):
                raise ValueError(
                    f"int8_static and compute='float16' are for models that answer in one pass, "
                    f"and {config.family} with the head {config.head} writes tokens or answers "
                    "several tasks. Use weights='int8'."
                )

    def _one_pass(self, config: Config) -> bool:
        plain = self.weights != STATIC and self.compute == "float32"
        return plain or not (has_cache(config) or config.head == "multi_task")

    def write(
        self,
        folder: pathlib.Path,
        config: Config,
        params: Params,
        companions: Companions = NOTHING,
    ) -> dict[str, Any]:
        change = to_float16 if self.compute == "float16" else None
        if self.weights == STATIC:
            weights = self._calibrated(folder, config, params, companions)
        else:
            weights = weights_of(self.weights, self.bits)
        files = export_onnx(config, params, folder, weights, change)
        written: dict[str, Any] = {"megabytes": sum(f.stat().st_size for f in files) / 1e6}
        return written | ({"bits": weights.bits} if isinstance(weights, Int8 | StaticInt8) else {})

    def _calibrated(
        self, folder: pathlib.Path, config: Config, params: Params, companions: Companions
    ) -> StaticInt8:
        """Scales that the calibration rows show."""
        if companions.calibration_batches is None:
            raise ValueError("int8_static is calibrated on data, and this experiment has none.")
        bits = self.bits or int8_bits()
        with tempfile.TemporaryDirectory(dir=folder.parent) as observed:
            export_onnx(config, params, pathlib.Path(observed), Observed())
            run = OnnxFiles(pathlib.Path(observed), config).outputs
            return StaticInt8(scales_of(run, companions.calibration_batches(), bits), bits)

    def verify(
        self, folder: pathlib.Path, config: Config, params: Params, *, tolerance: float
    ) -> dict[str, Any]:
        """As for all formats; others than float32 must only run and be finite."""
        tolerance = tolerance if self.exact else float(np.finfo(np.float32).max)
        return verify_onnx(folder, config, params, tolerance=tolerance)

    def open(self, folder: pathlib.Path, config: Config) -> Predict:
        """A function from a batch to the file's logits at its targets."""
        return OnnxFiles(folder, config).predict
