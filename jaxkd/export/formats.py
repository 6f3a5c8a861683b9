"""Formats a model is exported in: each can be asked whether it can, writes, and verifies itself."""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxkd.core.batch import Batch
from jaxkd.core.names import did_you_mean
from jaxkd.export.emit.kinds import FLOAT32, KINDS, Int8
from jaxkd.export.emit.whole import check_export
from jaxkd.export.extra import extra
from jaxkd.export.onnx_files import OnnxFiles
from jaxkd.export.onnx_model import check_size, export_onnx
from jaxkd.export.processor import int8_bits
from jaxkd.export.verify import verify_folder, verify_onnx
from jaxkd.hub import folder as hub
from jaxkd.models.families import Config
from jaxkd.models.model import Params

SaveTokenizer = Callable[[pathlib.Path], Any]
Predict = Callable[[Batch], np.ndarray]


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
        save_tokenizer: SaveTokenizer | None = None,
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
        save_tokenizer: SaveTokenizer | None = None,
    ) -> dict[str, Any]:
        shutil.rmtree(folder, ignore_errors=True)
        hub.save(folder, config, params, save_tokenizer=save_tokenizer)
        return {"megabytes": (folder / "model.safetensors").stat().st_size / 1e6}

    def verify(
        self, folder: pathlib.Path, config: Config, params: Params, *, tolerance: float
    ) -> dict[str, Any]:
        return verify_folder(folder, config, params, tolerance=tolerance)


@dataclasses.dataclass
class Onnx:
    """ONNX files that take what the model's tokenizer gives: see `export_onnx`."""

    weights: str = "float32"  # or int8: a quarter of the size, products of bytes
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
        if self.weights not in KINDS:
            raise ValueError(f"weights={self.weights!r}. {did_you_mean(self.weights, KINDS)}")
        if self.bits not in (0, 7, 8):
            raise ValueError(f"bits is {self.bits}; it is 7, 8, or 0: what this processor needs.")
        if config is not None:
            check_export(config)
            check_size(config)

    def write(
        self,
        folder: pathlib.Path,
        config: Config,
        params: Params,
        save_tokenizer: SaveTokenizer | None = None,
    ) -> dict[str, Any]:
        bits = self.bits or int8_bits()
        files = export_onnx(config, params, folder, FLOAT32 if self.exact else Int8(bits))
        written: dict[str, Any] = {"megabytes": sum(f.stat().st_size for f in files) / 1e6}
        return written if self.exact else written | {"bits": bits}

    def verify(
        self, folder: pathlib.Path, config: Config, params: Params, *, tolerance: float
    ) -> dict[str, Any]:
        """As for all formats; int8 must only run and be finite: its loss is measured."""
        tolerance = tolerance if self.exact else float(np.finfo(np.float32).max)
        return verify_onnx(folder, config, params, tolerance=tolerance)

    def open(self, folder: pathlib.Path, config: Config) -> Predict:
        """A function from a batch to the file's logits at its targets."""
        return OnnxFiles(folder, config).predict
