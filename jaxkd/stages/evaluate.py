"""Measure models over whole splits, each beside its teacher and the unigram line."""

import dataclasses
from typing import Any, ClassVar

from jaxkd.core.tree import parameter_count
from jaxkd.models import families
from jaxkd.runs.experiment import Workspace
from jaxkd.stages.models import load_model
from jaxkd.stages.task import measure_of


@dataclasses.dataclass
class Evaluate:
    """Loss, perplexity and accuracy; KL and agreement where a model was distilled.

    All models see the same masks: every token alike (no smoothing), the same in every seed.
    """

    models: tuple[str, ...]  # stages
    splits: tuple[str, ...] = ("validation",)  # train, validation, test
    batch_size: int = 32
    chunk: int = 0  # positions whose logits exist at once, to save memory; 0: all

    reads_text: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return self.models

    def check(self) -> None:
        unknown = set(self.splits) - {"train", "validation", "test"}
        if self.chunk < 0:
            raise ValueError(f"chunk is {self.chunk}; positions at a time, or 0 for all.")
        if unknown or not self.models or self.batch_size < 1:
            raise ValueError(
                f"splits={self.splits}, models={self.models}, batch_size={self.batch_size}: splits "
                "are among train, validation, test; at least one model; at least one row."
            )

    def run(self, workspace: Workspace) -> dict[str, Any]:
        workspace.display.start(workspace.name, len(self.models) * len(self.splits))
        unigram = {
            split: workspace.rows.unigram_at_targets(split, self.batch_size)
            for split in self.splits
        }
        found: dict[str, Any] = {}
        for i, name in enumerate(self.models):
            if workspace.stopping():
                raise KeyboardInterrupt(f"stopped before {name} was evaluated; start again")
            config, params = load_model(workspace.stage_folder(name), workspace.display.say)
            teacher_name = getattr(workspace.stages[name], "teacher", None) or None
            teacher = teacher_name and load_model(
                workspace.stage_folder(teacher_name), workspace.display.say
            )
            model = families.build(config)
            its = families.build(teacher[0]) if teacher else None
            measure = measure_of(workspace.rows, model, its, chunk=self.chunk)
            arranged = model.arrange(params)
            taught = its.arrange(teacher[1]) if teacher else None
            found[name] = {
                "teacher": teacher_name,
                "layers": config.layers,
                "width": config.width,
                "parameters": parameter_count(params),
                "megabytes": 4 * parameter_count(params) / 1e6,
                "splits": {},
            }
            for j, split in enumerate(self.splits, 1):
                batches = workspace.rows.batches(split, self.batch_size)
                numbers = measure(arranged, taught, batches)
                found[name]["splits"][split] = numbers | {"unigram": unigram[split]}
                workspace.display.step(i * len(self.splits) + j, numbers)
        workspace.display.stop()
        return {"models": found}
