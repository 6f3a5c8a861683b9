"""A whole experiment in seconds: the real stages on a page of text written here."""

import pathlib
import random

from configs import recipes
from jaxkd.data.rows.text import MaskedText
from jaxkd.models.bert import Config
from jaxkd.runs.experiment import Comparison, Curve, Experiment, Report
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train
from jaxkd.train.optimiser import AdamW


def write_corpus(folder: pathlib.Path) -> pathlib.Path:
    """WikiText's three files, of sentences drawn from a small grammar."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    for split, documents in (("train", 30), ("valid", 6), ("test", 6)):
        lines = []
        for i in range(documents):
            lines += ["", f" = Page {i} = ", ""]
            for _ in range(12):
                who, what = draw.choice(["cat", "dog", "bird"]), draw.choice(["fish", "seeds"])
                lines.append(f" the {who} likes {what} , and the {who} eats {what} every day . ")
        (folder / f"wiki.{split}.tokens").write_text("\n".join(lines) + "\n")
    return folder


def experiment(
    corpus: pathlib.Path | str, *, teacher_steps: int = 12, student_steps: int = 8, **teacher
) -> Experiment:
    """Teacher, pruned student_init, distilled student, evaluation."""
    often = dict(batch_size=8, log_every=2, save_every=4, evaluate_every=6, evaluate_rows=8)
    settings = dict(optimiser=AdamW(learning_rate=3e-3), layer_drop=0.2) | teacher
    return Experiment(
        title="Small: does everything run?",
        data=MaskedText(dir=str(corpus), tokenizer="trained", trained_size=256, length=16),
        stages={
            "teacher_init": Initialise(
                model=Config(
                    layers=2, width=16, heads=2, feed_forward=32, max_length=16,
                    dropout=0.1, attention_dropout=0.1,
                ),
            ),
            "teacher": Train(source="teacher_init", steps=teacher_steps, **often, **settings),
            "student_init": Prune(source="teacher"),
            "student": Train(
                teacher="teacher", source="student_init", terms=recipes.distilbert(),
                steps=student_steps, freeze=("embed/position",), **often,
            ),
            "evaluate": Evaluate(models=("teacher", "student"), batch_size=8),
        },
        report=Report(
            curves=(Curve("Student", ("student",)),),
            comparisons=(Comparison("student against teacher", "student", "teacher"),),
        ),
    )  # fmt: skip


def get_config(variant: str = "small") -> Experiment:
    """For run.py; the corpus is given as --config.data.dir."""
    return experiment("")
