"""Formats a model is exported in: each can be asked whether it can, writes, and verifies itself."""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxkd.core.batch import Batch
from jaxkd.export.emit.kinds import Int8, weights_of
from jaxkd.export.emit.whole import check_export
from jaxkd.export.extra import extra
from jaxkd.export.onnx_files import OnnxFiles
from jaxkd.export.onnx_model import check_size, export_onnx
from jaxkd.export.verify import verify_folder, verify_onnx
from jaxkd.hub import folder as hub
from jaxkd.models.families import Config
from jaxkd.models.model import Params

SaveTokenizer = Callable[[pathlib.Path], Any]
Predict = Callable[[Batch], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Companions:
    """What goes with a model's weights into its folder."""

    save_tokenizer: SaveTokenizer | None = None  # writes the tokenizer's files
    generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # eos_ids, ...
    # Of a model with exits: edges, tolerance, quality, moves, milliseconds and slowest.
    policies: Mapping[str, Any] | None = None


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
    """A folder that transformers' `from_pretrained` opens, with the model's tokenizer."""

    def check(self, config: Config | None = None) -> None:
        for library in ("torch", "transformers"):
            extra(library)
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
        return verify_folder(folder, config, params, tolerance=tolerance)


@dataclasses.dataclass
class Onnx:
    """ONNX files that take what the model's tokenizer gives: see `export_onnx`."""

    # "float32", "float16" (half the size) or "int8" (a quarter, products of bytes)
    weights: str = "float32"
    # Of int8 weights. 7 is exact on every processor, 8 not on x86 without VNNI; 0: what is exact
    # here (jaxkd/export/processor.py).
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
            check_size(config)

    def write(
        self,
        folder: pathlib.Path,
        config: Config,
        params: Params,
        companions: Companions = NOTHING,
    ) -> dict[str, Any]:
        weights = weights_of(self.weights, self.bits)
        files = export_onnx(config, params, folder, weights)
        written: dict[str, Any] = {"megabytes": sum(f.stat().st_size for f in files) / 1e6}
        return written | ({"bits": weights.bits} if isinstance(weights, Int8) else {})

    def verify(
        self, folder: pathlib.Path, config: Config, params: Params, *, tolerance: float
    ) -> dict[str, Any]:
        """As for all formats; others than float32 must only run and be finite."""
        tolerance = tolerance if self.exact else float(np.finfo(np.float32).max)
        return verify_onnx(folder, config, params, tolerance=tolerance)

    def open(self, folder: pathlib.Path, config: Config) -> Predict:
        """A function from a batch to the file's logits at its targets."""
        return OnnxFiles(folder, config).predict
