"""Terms at the early exits of a model: one loss for all of them, weighted by depth or alike."""

import dataclasses
from typing import Any

import jax

from jaxkd.core.batch import Batch
from jaxkd.core.outputs import Outputs
from jaxkd.core.ranges import field
from jaxkd.distil.schedule import Ramp, check_ramps
from jaxkd.distil.vocabulary_terms import HardLabels
from jaxkd.models.parts import exit_blocks

WEIGHTINGS = ("depth", "equal")
TARGETS = ("teacher", "head")


@dataclasses.dataclass
class AtExits:
    """The mean of a term over the exits: sum_j w_j L_j / sum_j w_j, the head being the last exit.

    With `weighting="depth"` w_j is the number of blocks below the exit.
    Source: Kaya, Hong, Dumitras (2019), arXiv:1810.07052; Zhou et al. (2020), arXiv:2006.04152.
    """

    term: Any = dataclasses.field(default_factory=HardLabels)  # its own weight is not used
    weight: float = field(1.0, at_least=0)
    weighting: str = field("depth", one_of=WEIGHTINGS)
    # What exits learn: the teacher's predictions, or those of the model's own head, to which no
    # gradient goes. Terms of labels alone look at neither.
    target: str = field("teacher", one_of=TARGETS)
    head: bool = True  # the head learns the term too; not if it is its target
    ramps: dict[str, Ramp] = dataclasses.field(default_factory=dict)

    @property
    def needs_teacher(self) -> bool:
        return self.term.needs_teacher and self.target == "teacher"

    def check(self, name: str) -> None:
        check_ramps(self, name)
        self.term.check(f"{name}.term")
        if not hasattr(self.term, "values"):
            raise ValueError(
                f"{name}.term is {type(self.term).__name__}; exits learn terms over predictions: "
                "HardLabels, SoftTargets, Divergence, SquaredError."
            )
        if self.term.ramps or self.term.weight != 1.0:
            raise ValueError(
                f"{name}.term has the weight {self.term.weight} and ramps of "
                f"{sorted(self.term.ramps)}, which would not be used. Set {name}.weight and "
                f"{name}.ramps instead; at exits a temperature stays what it is."
            )
        if self.target == "head" and not self.term.needs_teacher:
            raise ValueError(
                f"{name}.target is 'head', and {type(self.term).__name__} learns labels alone. "
                "Use a term with a teacher (SoftTargets), or leave target as it is."
            )

    def count(self, batch: Batch) -> Any:
        return self.term.count(batch)

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        if not student.exits:
            raise ValueError("the model has no early exits: its config's exits is ().")
        depths = {name: block + 1 for name, block in exit_blocks(student.exits).items()}
        logits = dict(student.exits)
        if self.head and self.target != "head":
            depths["head"], logits["head"] = len(student.hidden) - 1, student.logits
        if self.target == "head":
            teacher = dataclasses.replace(
                student, logits=jax.lax.stop_gradient(student.logits), exits={}
            )
        weights = {
            name: depth if self.weighting == "depth" else 1 for name, depth in depths.items()
        }
        total = 0.0
        for name, weight in weights.items():
            at_exit = dataclasses.replace(student, logits=logits[name])
            total = total + weight * self.term.total(at_exit, teacher, batch, own)
        return total / sum(weights.values())
