"""Write a model for others to open: a HuggingFace folder and an ONNX file, both verified."""

import dataclasses
import shutil
from typing import Any

from jaxkd.export.onnx_model import export_onnx, extra
from jaxkd.export.verify import verify_folder, verify_onnx
from jaxkd.hub import folder as hub
from jaxkd.runs.experiment import Workspace
from jaxkd.stages import tokenizer
from jaxkd.stages.models import load_model

FORMATS = ("huggingface", "onnx")


@dataclasses.dataclass
class Export:
    """Files of one model, in `huggingface/` and `onnx/model.onnx` of the stage's folder.

    Each is opened by the library it is for and must give our logits; otherwise the stage fails.
    """

    model: str  # stage
    formats: tuple[str, ...] = FORMATS
    tolerance: float = 1e-4  # largest absolute difference of a logit

    def inputs(self) -> tuple[str, ...]:
        return (self.model,)

    def check(self) -> None:
        unknown = set(self.formats) - set(FORMATS)
        if unknown:
            raise ValueError(f"formats={self.formats}: allowed are {', '.join(FORMATS)}.")
        # Now, not after hours of training: without the extra this stage cannot succeed.
        for library in ("torch", "onnx", "onnxruntime"):
            extra(library)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        config, params = load_model(workspace.stage_folder(self.model), workspace.display.say)
        checked: dict[str, Any] = {}
        if "huggingface" in self.formats:
            target = workspace.folder / "huggingface"
            shutil.rmtree(target, ignore_errors=True)
            save_tokenizer = tokenizer.saver(workspace.stage_folder(self.model), workspace.rows)
            hub.save(target, config, params, save_tokenizer=save_tokenizer)
            checked["huggingface"] = verify_folder(target, config, params, tolerance=self.tolerance)
            weights = (target / "model.safetensors").stat().st_size
            checked["huggingface"]["megabytes"] = weights / 1e6
        if "onnx" in self.formats:
            file = workspace.folder / "onnx" / "model.onnx"
            export_onnx(config, params, file)
            checked["onnx"] = verify_onnx(file, config, params, tolerance=self.tolerance)
            checked["onnx"]["megabytes"] = file.stat().st_size / 1e6
        return checked
