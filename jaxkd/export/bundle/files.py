"""The files of a bundle: tensors side by side, graphs that are equal only once, and all digests."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxkd.device import folder as device
from jaxkd.export.emit.graph import Graph
from jaxkd.export.onnx_model import write_model

ALIGNMENT = 64  # bytes, of a tensor in its file; a file begins at a page
SUMS, MANIFEST = "SHA256SUMS", "manifest.json"
DTYPES = {*device.DTYPES}  # of stored tensors


@dataclasses.dataclass
class Files:
    """Writes into a bundle's folder."""

    folder: pathlib.Path
    graphs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    _known: dict[str, str] = dataclasses.field(default_factory=dict)  # digest -> name of a graph

    def tensors(self, name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Write weights/NAME.bin; returns what the manifest says of it."""
        file = self.folder / "weights" / f"{name}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        described, offset = {}, 0
        with open(file, "xb") as stream:  # a name is used once
            for tensor, array in arrays.items():
                array = np.ascontiguousarray(array)
                if array.dtype.name not in DTYPES:
                    raise TypeError(f"{name}: {tensor} is {array.dtype}; known: {sorted(DTYPES)}.")
                offset += stream.write(b"\0" * (-offset % ALIGNMENT))
                described[tensor] = {
                    "dtype": array.dtype.name, "shape": list(array.shape), "offset": offset,
                }  # fmt: skip
                offset += stream.write(memoryview(array).cast("B") if array.size else b"")
        return {"file": f"weights/{file.name}", "bytes": offset, "tensors": described}

    def graph(self, name: str, graph: Graph) -> str:
        """Write graphs/NAME.onnx, unless there is an equal one; returns the name it has."""
        weights = list(graph.weights) if graph.streamed else []
        return self.model(name, graph.model(), list(graph.inputs), list(graph.outputs), weights)

    def model(
        self, name: str, model: Any, inputs: list[str], outputs: list[str], weights: list[str]
    ) -> str:
        """The same of an onnx.ModelProto, which also has `weights` as inputs."""
        file = self.folder / "graphs" / f"{name}.onnx"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_model(model, file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if digest in self._known:
            file.unlink()
            return self._known[digest]
        self._known[digest] = name
        self.graphs[name] = {
            "file": f"graphs/{file.name}",
            "inputs": inputs,
            "outputs": outputs,
            "weights": weights,
        }
        return name

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, and last the digests of all files."""
        text = json.dumps({**manifest, "graphs": self.graphs}, indent=1)
        (self.folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
        write_sums(self.folder)


def write_sums(folder: pathlib.Path) -> None:
    """The digests of a bundle's files, as `sha256sum -c` reads them; the manifest's is the last."""
    files = sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.name != SUMS
    )
    files = [file for file in files if file != MANIFEST] + [MANIFEST]
    lines = [f"{_digest(folder / file)}  {file}\n" for file in files]
    unfinished = folder / f".{SUMS}.tmp"
    unfinished.write_text("".join(lines), encoding="utf-8")
    os.replace(unfinished, folder / SUMS)


def _digest(file: pathlib.Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def annotate(folder: pathlib.Path, name: str, value: Any) -> None:
    """Set an entry of a bundle's manifest; digests are written anew."""
    file = folder / MANIFEST
    manifest = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**manifest, name: value}, indent=1) + "\n", encoding="utf-8")
    write_sums(folder)
