"""Teach a student: any set of weighted terms, under a teacher that does not learn."""

import dataclasses
from typing import Any

from jaxkd.distil import objective
from jaxkd.models.families import Config
from jaxkd.stages import tokenizer
from jaxkd.stages.experiment import Place
from jaxkd.stages.training import Training, check_head, load_model


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
        self._check_tokenizers(place, config, teacher[0])
        tokenizer.keep(place.beside(self.student), place.folder)
        return self.fit(place, config, params, self.terms, teacher=teacher)

    def _check_tokenizers(self, place: Place, student: Config, teacher: Config) -> None:
        """Raise ValueError unless both models and the text mean the same by every id."""
        wanted = place.rows.tokenizer.fast.get_vocab()
        for name, config in ((self.teacher, teacher), (self.student, student)):
            found = tokenizer.vocabulary(place.beside(name))
            if found is not None and found != wanted:
                unlike = sum(wanted.get(token) != number for token, number in found.items())
                raise ValueError(
                    f"the tokenizer of {name!r} has {len(found)} tokens, {unlike} of them under "
                    f"another id or none in that of the text ({place.rows.tokenizer.origin}, "
                    f"{len(wanted)} tokens): its predictions cannot be compared token by token. "
                    "Give the text the model's own: --config.data.tokenizer=NAME."
                )
            if config.vocabulary < len(wanted):
                raise ValueError(
                    f"{name!r} has {config.vocabulary} token embeddings, the tokenizer of the text "
                    f"has {len(wanted)} tokens."
                )
