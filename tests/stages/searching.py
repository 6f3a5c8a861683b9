"""A whole search in seconds, for run.py; the corpus is given as --config.data.dir."""

from jaxkd.data.rows.text import MaskedText
from jaxkd.models.bert import Config
from jaxkd.runs.experiment import Experiment
from jaxkd.search.latency import Latency
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.search import Search
from jaxkd.stages.train import Train
from jaxkd.train.optimiser import AdamW

SHAPE = Config(layers=3, width=16, heads=2, feed_forward=32, max_length=16)


def get_config(variant: str = "small") -> Experiment:
    """Candidates are worth what they learn; time, which is never twice the same, counts nothing."""
    return Experiment(
        title="A search",
        data=MaskedText(dir="", tokenizer="trained", trained_size=256, length=16),
        stages={
            "teacher_init": Initialise(model=SHAPE),
            "teacher": Train(source="teacher_init", steps=6, batch_size=8, evaluate_every=0),
            "search": Search(
                teacher="teacher", layers=(1, 2, 3), feed_forward=(8, 16, 32), width=(16,),
                heads=(2,), candidates=6, optimizer="evolution", alpha=0.0, batch_size=8, share=0.5,
                epochs=1.0, validation_rows=8, halving=2, optimiser=AdamW(learning_rate=3e-3),
                latency=Latency(length=8, rounds=1), parallel="jitted",
            ),
        },
    )  # fmt: skip
