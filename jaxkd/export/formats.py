"""Formats a model is exported in: each can be asked whether it can, writes, and verifies itself."""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jaxkd.export.emit.whole import check_export
from jaxkd.export.extra import extra
from jaxkd.export.onnx_model import check_size, export_onnx
from jaxkd.export.verify import verify_folder, verify_onnx
from jaxkd.hub import folder as hub
from jaxkd.models.families import Config
from jaxkd.models.model import Params

SaveTokenizer = Callable[[pathlib.Path], Any]


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

    def check(self, config: Config | None = None) -> None:
        for library in ("onnx", "onnxruntime"):
            extra(library)
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
        files = export_onnx(config, params, folder)
        return {"megabytes": sum(file.stat().st_size for file in files) / 1e6}

    def verify(
        self, folder: pathlib.Path, config: Config, params: Params, *, tolerance: float
    ) -> dict[str, Any]:
        return verify_onnx(folder, config, params, tolerance=tolerance)
