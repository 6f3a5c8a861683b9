"""Your own pairs of texts: a small model that translates, from a larger one.

    python run.py --config experiments/translate.py \
        --config.data.train="('train.en','train.de')" --config.data.validation="('dev.en','dev.de')"
    python run.py --config experiments/translate.py --config.data.train=pairs.jsonl \
        --config.data.source=question --config.data.target=sql
    python run.py --config experiments/translate.py --config.data.train=pairs.csv \
        --config.teacher=FOLDER_OR_HUB_ID            # a Marian or BART instead of a new teacher
    python run.py --config experiments/translate.py:smoke     # about a minute, embedded text

Pairs are two files of parallel lines, or a table (CSV, TSV, JSONL, each also .gz, Parquet), a
folder that a TFDS builder prepared, or a hub id with a column of sources and one of targets.
Without a validation file a tenth of the pairs is held out; without a test file the validation rows
are the test.

Without a teacher a Transformer of three layers learns from your pairs, under a vocabulary of
subwords trained on them. It writes, with a beam, a target for every source; a student of a seventh
of its parameters learns those (Seq-KD), or your own targets. A teacher that is named is fine-tuned
first, and its student keeps `layers` of its decoder's blocks. The student is written as a
HuggingFace folder.

    python -m jaxkd.predict runs/translate-mini/0/export/huggingface --text "A man sleeps."
"""

import dataclasses

from configs import models
from configs.own_data import OwnData, smoke_training, tokens_to_write, training
from jaxkd.core.names import did_you_mean
from jaxkd.data.rows.pairs import Pairs
from jaxkd.decode.beam import Beam
from jaxkd.export.formats import HuggingFace
from jaxkd.runs.experiment import Comparison, Curve, Report
from jaxkd.stages.choose import Choose
from jaxkd.stages.decode import Decode
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.export import Export
from jaxkd.stages.generate import Generate
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.load import Load
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train

VARIANTS = ("mini", "smoke")
ROOM = 80  # tokens of a target
RATES = {"teacher": (1e-3, 5e-5), "student": (2e-3, 2e-4), "alone": (2e-3, 2e-4)}
LABELS = {
    "teacher": "teacher",
    "student_init": "student, before",
    "student": "student, the teacher's targets (Seq-KD)",
    "alone": "the same student, your targets",
}


@dataclasses.dataclass
class Translate(OwnData):
    """Sources and targets."""

    def resolve(self) -> None:
        if self.teacher:
            self.stages["loaded"] = Load(head="seq2seq_lm", compute="bfloat16")
            self.stages["student_init"] = Prune(source="teacher", keep="")
            # Learning rates of models from scratch would undo what a pretrained one knows.
            for name, (scratch, pretrained) in RATES.items():
                optimiser = self.stages[name].optimiser
                if optimiser.learning_rate == scratch:
                    optimiser.learning_rate = pretrained
            self.data.tokenizer = "" if self.data.tokenizer == "trained" else self.data.tokenizer
        super().resolve()
        for name in ("generated", "decode"):
            beam = self.stages[name].beam
            beam.max_tokens = tokens_to_write(beam.max_tokens, ROOM, self.data.write)


def get_config(variant: str = "mini") -> Translate:
    """mini: your own pairs; smoke: words to be written in reverse order."""
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r} of translate. {did_you_mean(variant, VARIANTS)}")
    smoke = variant == "smoke"
    size = "smoke" if smoke else "mini"
    if smoke:
        data = Pairs(
            origin="embedded", trained_size=600, read=48, write=48, rows=256, shares=(1.0,)
        )
        teacher = student = smoke_training(chunk=64)
    else:
        data = Pairs(trained_size=4000, read=64, write=ROOM, cut=True)
        teacher = training(1e-3, 6, 64, chunk=256)
        student = training(2e-3, 4, 64, chunk=256)
    room = 16 if smoke else ROOM
    best, width = "best", 2 if smoke else 4
    stages = {
        "loaded": Initialise(model=models.seq2seq_model("transformer", size, "teacher")),
        "teacher": Train(source="loaded", **teacher),
        "generated": Generate(
            teacher="teacher", beam=Beam(width=width, n_best=1, max_tokens=room)
        ),
        best: Choose(source="generated", how="best"),
        "student_init": Initialise(model=models.seq2seq_model("transformer", size, "student")),
        "student": Train(source="student_init", targets=best, **student),
        "alone": Train(source="student_init", **student),
        "evaluate": Evaluate(models=tuple(LABELS), splits=("test",), batch_size=64, chunk=256),
        "decode": Decode(
            models=tuple(LABELS), metrics=("bleu", "exact"),
            beam=Beam(width=width, max_tokens=room), rows=32 if smoke else 1000,
        ),
        "export": Export(model="student", formats={"huggingface": HuggingFace()}),
    }  # fmt: skip
    students = ("student", "alone")
    return Translate(
        title="",
        data=data,
        stages=stages,
        layers=1,
        report=Report(
            labels=dict(LABELS),
            curves=(Curve("Validation loss over steps", students, "validation", unigram=True),),
            comparisons=tuple(
                Comparison(
                    f"Seq-KD against your targets ({search})",
                    *students,
                    "test",
                    f"bleu_{search}",
                )
                for search in ("greedy", "beam")
            ),
            split="test",
        ),
    )
