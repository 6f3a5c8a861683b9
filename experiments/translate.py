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
from configs.own_data import OwnData, smoke_training, training
from jaxkd.core.names import did_you_mean
from jaxkd.data.rows.pairs import Pairs
from jaxkd.decode.beam import Beam
from jaxkd.runs.experiment import Comparison, Curve, Report
from jaxkd.stages.choose import Choose
from jaxkd.stages.decode import Decode
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.export import Export, with_bundles
from jaxkd.stages.generate import Generate
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.load import Load
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train

VARIANTS = ("mini", "smoke")
ROOM = 80  # tokens of a target
# Learning rates of a model from scratch, which would undo what a pretrained one knows, and of such.
RATES = {"teacher": (1e-3, 5e-5), "student": (2e-3, 2e-4), "alone": (2e-3, 2e-4)}
LABELS = {
    "teacher": "teacher",
    "student_init": "student, before",
    "student": "student, the teacher's targets (Seq-KD)",
    "alone": "the same student, your targets",
}


def _pretrained() -> Load:
    return Load(head="seq2seq_lm", compute="bfloat16")


@dataclasses.dataclass
class Translate(OwnData):
    """Sources and targets."""

    # What the stage `loaded` is where a teacher is named.
    pretrained: Load = dataclasses.field(default_factory=_pretrained)

    def resolve(self) -> None:
        if self.teacher:
            self._start_from_pretrained()
        elif self.pretrained != _pretrained():
            raise ValueError(
                "--config.pretrained.FIELD sets how a pretrained teacher is read, and "
                "--config.teacher names none."
            )
        for name, rates in RATES.items():
            optimiser = self.stages[name].optimiser
            optimiser.learning_rate = optimiser.learning_rate or rates[bool(self.teacher)]
        super().resolve()
        for name in ("generated", "decode"):
            beam = self.stages[name].beam
            beam.max_tokens = beam.max_tokens or self.data.write

    def _start_from_pretrained(self) -> None:
        for name, role in (("loaded", "teacher"), ("student_init", "student")):
            if self.stages[name] not in [_from_scratch(size, role) for size in ("mini", "smoke")]:
                raise ValueError(
                    f"stages.{name} was changed, and --config.teacher names a model, whose "
                    "shape is its own. Its settings are --config.pretrained.FIELD, the student's "
                    "--config.layers; or name no teacher."
                )
        self.stages["loaded"] = self.pretrained
        self.stages["student_init"] = Prune(source="teacher", keep="")
        self.data.tokenizer = "" if self.data.tokenizer == "trained" else self.data.tokenizer


def _from_scratch(size: str, role: str) -> Initialise:
    return Initialise(model=models.seq2seq_model("transformer", size, role))


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
        # 0: the rates above.
        teacher, student = training(0.0, 6, 64, chunk=256), training(0.0, 4, 64, chunk=256)
    room = 16 if smoke else 0  # 0: data.write
    best, width = "best", 2 if smoke else 4
    stages = {
        "loaded": _from_scratch(size, "teacher"),
        "teacher": Train(source="loaded", **teacher),
        "generated": Generate(
            teacher="teacher", beam=Beam(width=width, n_best=1, max_tokens=room)
        ),
        best: Choose(source="generated", how="best"),
        "student_init": _from_scratch(size, "student"),
        "student": Train(source="student_init", targets=best, **student),
        "alone": Train(source="student_init", **student),
        "evaluate": Evaluate(models=tuple(LABELS), splits=("test",), batch_size=64, chunk=256),
        "decode": Decode(
            models=tuple(LABELS), metrics=("bleu", "exact"),
            beam=Beam(width=width, max_tokens=room), rows=32 if smoke else 1000,
        ),
        "export": Export(model="student", formats=with_bundles()),
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
