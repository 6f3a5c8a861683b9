"""A teacher of moments, and what it writes: the real stages, on words to be reversed."""

from jaxkd.data.rows.pairs import Pairs
from jaxkd.decode.beam import Beam
from jaxkd.models.marian import Config as Marian
from jaxkd.runs.experiment import Experiment
from jaxkd.stages.choose import Choose
from jaxkd.stages.generate import Generate
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.label import Label
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train

STEPS = dict(batch_size=8, log_every=2, save_every=4, evaluate_every=100, evaluate_rows=8)
ROWS = 20


def experiment(**stages) -> Experiment:
    model = Marian(
        layers=2, encoder_layers=1, width=16, heads=2, feed_forward=32, max_length=64,
        init_std=0.3, dropout=0.0,
    )  # fmt: skip
    pairs = dict(origin="embedded", trained_size=300, read=64, write=64, rows=ROWS, shares=(1.0,))
    first = {
        "teacher_init": Initialise(model=model),
        "teacher": Train(source="teacher_init", steps=4, **STEPS),
        "student_init": Prune(source="teacher"),
    }
    return Experiment(title="Written", data=Pairs(**pairs), stages=first | stages)


def generate(**settings) -> Generate:
    beam = Beam(width=3, n_best=3, max_tokens=12)
    return Generate(**(dict(beam=beam, batch_size=8, shard_rows=8) | settings))


def get_config(variant: str = "written") -> Experiment:
    """For run.py: five shards of hypotheses, the best of them, and three of the teacher's draws."""
    return experiment(
        generated=generate(shard_rows=4),
        best=Choose(source="generated"),
        labels=Label(kind="draws", n=3, batch_size=8, shard_rows=8),
    )
