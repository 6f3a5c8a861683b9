"""Your own prompts and answers: a small model that answers, from a large one.

    python run.py --config experiments/instruct.py --config.data.train=qa.jsonl \
        --config.data.prompt=prompt --config.data.answer=answer --config.teacher=FOLDER
    python run.py --config experiments/instruct.py --config.data.train=qa.csv \
        --config.teacher=FOLDER_OR_HUB_ID --config.layers=6 --config.data.read=512
    python run.py --config experiments/instruct.py:smoke     # about a minute, embedded text

The table is CSV, TSV, JSONL (each also .gz), Parquet, a folder that a TFDS builder prepared, or a
hub id; one column holds prompts, one answers. Without a validation file a tenth of the prompts is
held out; without a test file the validation rows are the test.

The teacher is a decoder: a HuggingFace folder, a hub id or the folder of a stage of ours; it is
fine-tuned on the answers first. The student keeps `layers` of its blocks. It learns the answers
with the teacher's distribution at every token of them; the same student learns the answers alone.
Each then answers the test prompts. The student is written as a HuggingFace folder.

    python -m jaxkd.predict runs/instruct-mini/0/export/huggingface --text $'a prompt\n'
"""

import dataclasses

from configs.own_data import OwnData, decoder_stages, smoke_training, training
from jaxkd.core.names import did_you_mean
from jaxkd.data.rows.pairs import Instructions
from jaxkd.decode.beam import Beam
from jaxkd.runs.experiment import Comparison, Curve, Report
from jaxkd.stages.decode import Decode
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.export import Export

VARIANTS = ("mini", "smoke")
ROOM = 128  # tokens of an answer
LABELS = {
    "teacher": "teacher, on your answers",
    "student_init": "student, before",
    "student": "student, distilled",
    "alone": "the same student, answers alone",
}


@dataclasses.dataclass
class Instruct(OwnData):
    """Prompts and answers."""

    def resolve(self) -> None:
        super().resolve()
        decode = self.stages["decode"]
        decode.beam.max_tokens = decode.beam.max_tokens or self.data.write


def get_config(variant: str = "mini") -> Instruct:
    """mini: your own table; smoke: words to be written in reverse order."""
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r} of instruct. {did_you_mean(variant, VARIANTS)}")
    smoke = variant == "smoke"
    if smoke:
        data = Instructions(
            origin="embedded", trained_size=600, read=48, write=48, rows=256, shares=(1.0,)
        )
        teacher = student = smoke_training(chunk=64)
    else:
        data = Instructions(tokenizer="", read=256, write=ROOM, cut=True)
        teacher, student = training(5e-5, 2, 16, chunk=256), training(2e-4, 4, 16, chunk=256)
    stages = decoder_stages(smoke, teacher, student) | {
        "evaluate": Evaluate(models=tuple(LABELS), splits=("test",), batch_size=16, chunk=256),
        "decode": Decode(
            models=tuple(LABELS),
            metrics=("exact", "rouge"),
            beam=Beam(width=2, max_tokens=16 if smoke else 0),  # 0: data.write
            batch_size=16,
            rows=32 if smoke else 256,
        ),
        "export": Export(model="student"),
    }
    students = ("student", "alone")
    return Instruct(
        title="",
        data=data,
        stages=stages,
        layers=1 if smoke else 3,
        report=Report(
            labels=dict(LABELS),
            curves=(Curve("Validation loss over steps", students, "validation", unigram=True),),
            comparisons=(
                Comparison("distilled against answers alone", *students, "test", "rougeL_greedy"),
            ),
            split="test",
        ),
    )
