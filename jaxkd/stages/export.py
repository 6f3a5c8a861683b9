"""Write a model for others to open: a HuggingFace folder and an ONNX file, both verified."""

import dataclasses
from typing import Any

from jaxkd.core.names import did_you_mean
from jaxkd.export.formats import Format, HuggingFace, Onnx
from jaxkd.models.families import Config
from jaxkd.runs.experiment import Workspace
from jaxkd.stages import tokenizer
from jaxkd.stages.training import load_model


def _both() -> dict[str, Format]:
    return {"huggingface": HuggingFace(), "onnx": Onnx()}


@dataclasses.dataclass
class Export:
    """Files of one model, each format in the folder of its name within the stage's.

    Each is opened by the library it is for and must do what our model does; otherwise the stage
    fails. Both are compared in float32, whatever the model computes in.
    """

    model: str  # stage
    formats: dict[str, Format] = dataclasses.field(default_factory=_both)
    skip: tuple[str, ...] = ()  # names of formats that are not written
    tolerance: float = 1e-4  # largest absolute difference of a logit

    def inputs(self) -> tuple[str, ...]:
        return (self.model,)

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

    def check_config(self, config: Config) -> None:
        """Raise ValueError if a format cannot hold such a model."""
        for each in self._written().values():
            each.check(config)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        source = workspace.stage_folder(self.model)
        config, params = load_model(source, workspace.display.say)
        self.check_config(config)
        checked: dict[str, Any] = {}
        for name, each in self._written().items():
            folder = workspace.folder / name
            save_tokenizer = tokenizer.saver(source, workspace.rows)
            written = each.write(folder, config, params, save_tokenizer)
            verified = each.verify(folder, config, params, tolerance=self.tolerance)
            checked[name] = verified | written
        return checked

    def _written(self) -> dict[str, Format]:
        return {name: each for name, each in self.formats.items() if name not in self.skip}
