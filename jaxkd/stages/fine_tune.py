"""Train the model of an earlier stage on the data alone, without a teacher."""

import dataclasses
from typing import Any

from jaxkd.runs.experiment import Workspace
from jaxkd.stages import tokenizer
from jaxkd.stages.training import Training, check_head, check_tokenizer, load_model, of_data


@dataclasses.dataclass
class FineTune(Training):
    """Cross-entropy alone: what a student becomes without its teacher, from the same start."""

    source: str = "student_init"  # stage whose model is trained
    layer_drop: float = 0.0  # probability of each block to be skipped in a step

    def inputs(self) -> tuple[str, ...]:
        return (self.source, *self.chosen())

    def check(self) -> None:
        super().check()
        if not 0 <= self.layer_drop < 1:
            raise ValueError(f"layer_drop is {self.layer_drop}; it is at least 0 and below 1.")

    def run(self, workspace: Workspace) -> dict[str, Any]:
        config, params = load_model(
            workspace.stage_folder(self.source), workspace.display.say, on_host=True
        )
        check_head(self.source, config, workspace.rows)
        check_tokenizer(workspace, self.source, config)
        tokenizer.keep(workspace.stage_folder(self.source), workspace.folder)
        return self.fit(
            workspace, config, params, of_data(workspace.rows), layer_drop=self.layer_drop
        )
