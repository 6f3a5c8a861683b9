"""Teach a student: any set of weighted terms, under a teacher that does not learn."""

import dataclasses
from typing import Any

from jaxkd.distil import objective
from jaxkd.stages.experiment import Place
from jaxkd.stages.training import Training, load_model


@dataclasses.dataclass
class Distil(Training):
    """Distil the model of one stage into that of another."""

    teacher: str = "teacher"
    student: str = "seedling"
    terms: objective.Terms = dataclasses.field(default_factory=dict)

    def inputs(self) -> tuple[str, ...]:
        return (self.teacher, self.student)

    def check(self) -> None:
        super().check()
        objective.check(self.terms)

    def run(self, place: Place) -> dict[str, Any]:
        teacher = load_model(place.beside(self.teacher), place.display.say)
        config, params = load_model(place.beside(self.student), place.display.say)
        for what in ("vocabulary", "width"):
            mine, its = getattr(config, what), getattr(teacher[0], what)
            if mine != its:
                raise ValueError(
                    f"student {self.student!r} has {what} {mine}, teacher {self.teacher!r} has "
                    f"{its}; these terms compare them one to one, so they must be equal."
                )
        return self.fit(place, config, params, self.terms, teacher=teacher)
