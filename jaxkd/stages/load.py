"""Where an experiment's first model comes from: one somebody trained, or random weights."""

import dataclasses
from typing import Any

from jaxkd.models import families
from jaxkd.models.bert import Config
from jaxkd.stages import tokenizer
from jaxkd.stages.experiment import Place
from jaxkd.stages.student import leave
from jaxkd.stages.training import depends_on, open_model


@dataclasses.dataclass
class Load:
    """Read a model and its tokenizer by name."""

    name: str = ""  # HuggingFace folder, hub id, or the folder of a stage of ours
    head: str = ""  # put this head on it; empty: the one it has

    def inputs(self) -> tuple[str, ...]:
        return ()

    def depends(self) -> Any:
        return depends_on(self.name)

    def check(self) -> None:
        if not self.name:
            raise ValueError(
                "name is empty. Give a HuggingFace folder, a hub id or the folder of a stage: "
                "--config.stages.STAGE.name=NAME."
            )

    def run(self, place: Place) -> dict[str, Any]:
        config, params = open_model(self.name, place.display.say, head=self.head, seed=place.seed)
        tokenizer.fetch(self.name, place.folder, place.display.say)
        return leave(place, config, params)


@dataclasses.dataclass
class Draw:
    """Random weights of a given shape."""

    model: families.Config = dataclasses.field(default_factory=Config)

    def inputs(self) -> tuple[str, ...]:
        return ()

    def depends(self) -> Any:
        return families.describe(self.model)["family"]

    def check(self) -> None:
        self.model.check()

    def run(self, place: Place) -> dict[str, Any]:
        return leave(place, self.model, families.build(self.model).init(place.seed, place.name))
