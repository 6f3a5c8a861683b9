"""Train the model of an earlier stage on the data alone, without a teacher."""

import dataclasses
from typing import Any

from jaxkd.stages import tokenizer
from jaxkd.stages.experiment import Place
from jaxkd.stages.training import Training, check_head, check_tokenizer, load_model, of_data


@dataclasses.dataclass
class FineTune(Training):
    """Cross-entropy alone: what a student becomes without its teacher, from the same start."""

    source: str = "seedling"  # stage whose model is trained
    layer_drop: float = 0.0  # probability of each block to be skipped in a step

    def inputs(self) -> tuple[str, ...]:
        return (self.source, *self.chosen())

    def check(self) -> None:
        super().check()
        if not 0 <= self.layer_drop < 1:
            raise ValueError(f"layer_drop is {self.layer_drop}; it is at least 0 and below 1.")

    def run(self, place: Place) -> dict[str, Any]:
        config, params = load_model(place.beside(self.source), place.display.say, on_host=True)
        check_head(self.source, config, place.rows)
        check_tokenizer(place, self.source, config)
        tokenizer.keep(place.beside(self.source), place.folder)
        return self.fit(place, config, params, of_data(place.rows), layer_drop=self.layer_drop)
