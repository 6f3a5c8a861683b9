"""One encoder for several tasks of a robot's plan, from twelve layers to six.

    python run.py --config experiments/hitut.py          # mini: ALFRED, CPU
    python run.py --config experiments/hitut.py:smoke    # about a minute, stand-in plans
    python run.py --config experiments/hitut.py --config.data.annotations=3

A RoBERTa reads an instruction and the steps so far; its heads predict the next sub-goal and its
object, or the next action and its object. Every other layer becomes a student, which is distilled
as DistilBERT was (the teacher's distributions, the labels, hidden states) or trained on the labels
alone; a third student starts from random weights.

The labels of ALFRED's tests are not public: valid_seen is the test here, and 5% of the training
trajectories are held out for validation.

mini takes an hour and a half on one core; its teacher has not converged then (results/README.md).

Original: HiTUT (Zhang and Chai, 2021, arXiv:2106.03427) also sees images and acts in the scene;
its numbers are not comparable.
"""

import dataclasses

from configs import data, models, recipes
from jaxkd.core.names import did_you_mean
from jaxkd.runs.experiment import Comparison, Curve, Experiment, Report
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train
from jaxkd.train.optimiser import AdamW

LABELS = {
    "teacher": "teacher, twelve layers",
    "distilled": "every other layer, distilled",
    "alone": "every other layer, labels alone",
    "random": "random weights, distilled",
}


@dataclasses.dataclass
class Size:
    """Steps and batch sizes."""

    teacher: int = 4500  # steps
    student: int = 1500
    batch: int = 32
    every: int = 300
    layers: int = 6  # of the students


SIZES = {"mini": Size(), "smoke": Size(teacher=10, student=6, batch=16, every=5, layers=1)}


def get_config(variant: str = "mini") -> Experiment:
    """The experiment at one size, one of SIZES."""
    if variant not in SIZES:
        raise ValueError(f"no variant {variant!r} of hitut. {did_you_mean(variant, SIZES)}")
    size = SIZES[variant]

    def training(steps: int, rate: float) -> dict[str, object]:
        return dict(
            steps=steps, batch_size=size.batch, save_every=size.every, evaluate_every=size.every,
            evaluate_rows=1024, optimiser=AdamW(learning_rate=rate),
        )  # fmt: skip

    def distilled(start: str) -> Train:
        return Train(
            source=start,
            teacher="teacher",
            terms=recipes.distilbert(),
            **training(size.student, 5e-4),
        )

    stages: dict[str, object] = {
        "teacher_init": Initialise(model=models.roberta_multi_task(variant), stream="teacher"),
        "teacher": Train(source="teacher_init", **training(size.teacher, 5e-4)),
        "student_init": Prune(source="teacher"),
        "distilled": distilled("student_init"),
        "alone": Train(source="student_init", **training(size.student, 5e-4)),
        "random_init": Initialise(like="teacher", layers=size.layers, stream="unlearned"),
        "random": distilled("random_init"),
        "evaluate": Evaluate(
            models=("teacher", "student_init", *tuple(LABELS)[1:]), splits=("test",)
        ),
    }
    students = tuple(name for name in LABELS if name != "teacher")
    return Experiment(
        title="One encoder for several tasks: twelve layers to six",
        data=data.alfred_tasks(embedded=variant == "smoke"),
        stages=stages,
        report=Report(
            labels=LABELS | {"student_init": "every other layer, not trained"},
            curves=(Curve("Validation loss over steps", ("teacher", *students), "validation"),),
            comparisons=tuple(
                Comparison(title, "distilled", other, "test", f"accuracy_{task}")
                for title, other in {
                    "distilled against labels alone": "alone",
                    "every other layer against random weights": "random",
                }.items()
                for task in ("subgoal", "action")
            ),
            split="test",
        ),
    )
