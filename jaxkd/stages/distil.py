"""Teach a student: any set of weighted terms, under a teacher that does not learn."""

import dataclasses
from typing import Any

from jaxkd.distil import objective
from jaxkd.stages import tokenizer
from jaxkd.stages.experiment import Place
from jaxkd.stages.training import Training, check_head, check_tokenizer, load_model


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
        check_head(self.teacher, teacher[0], place.rows)
        check_head(self.student, config, place.rows)
        check_tokenizer(place, self.teacher, teacher[0])
        check_tokenizer(place, self.student, config)
        tokenizer.keep(place.beside(self.student), place.folder)
        return self.fit(place, config, params, self.terms, teacher=teacher)
