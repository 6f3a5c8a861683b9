"""Your own text: a small language model from a large one.

    python run.py --config experiments/generate_text.py --config.data.train=corpus.txt \
        --config.teacher=FOLDER_OR_HUB_ID
    python run.py --config experiments/generate_text.py --config.data.train=corpus.jsonl \
        --config.data.text=body --config.teacher=FOLDER --config.layers=4 --config.data.length=512
    python run.py --config experiments/generate_text.py:smoke     # about a minute, embedded text

The text is a file whose documents are separated by empty lines (without any, each line is one), or
a table with a column of texts (CSV, TSV, JSONL, Parquet), a folder that a TFDS builder prepared, or
a hub id. Without a validation file a tenth of the documents is held out.

The teacher is a decoder: a HuggingFace folder, a hub id or the folder of a stage of ours. It is
fine-tuned on the text first (`--config.stages.teacher.epochs=0 --config.stages.teacher.steps=1`
leaves it almost as it is). The student keeps `layers` of its blocks and learns the text with the
teacher's distribution at every token; the same student learns the text alone. It is written as a
HuggingFace folder, which `generate` of transformers opens.

    python -m jaxkd.predict runs/generate_text-mini/0/export/huggingface --text "Once"
"""

import dataclasses

from configs.own_data import OwnData, decoder_stages, smoke_training, training
from jaxkd.core.names import did_you_mean
from jaxkd.data.rows.text import CausalText
from jaxkd.runs.experiment import Comparison, Curve, Report
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.export import Export

VARIANTS = ("mini", "smoke")
LABELS = {
    "loaded": "teacher, before",
    "teacher": "teacher, on your text",
    "student_init": "student, before",
    "student": "student, distilled",
    "alone": "the same student, the text alone",
}


@dataclasses.dataclass
class GenerateText(OwnData):
    """Plain text, read from left to right."""


def get_config(variant: str = "mini") -> GenerateText:
    """mini: your own text; smoke: the embedded prose."""
    if variant not in VARIANTS:
        raise ValueError(
            f"no variant {variant!r} of generate_text. {did_you_mean(variant, VARIANTS)}"
        )
    smoke = variant == "smoke"
    if smoke:
        data = CausalText(
            origin="embedded", tokenizer="trained", trained_size=512, length=33, rows=256
        )
        teacher = student = smoke_training(chunk=64)
    else:
        data = CausalText(tokenizer="", length=256)
        teacher, student = training(5e-5, 1, 16, chunk=256), training(2e-4, 3, 16, chunk=256)
    stages = decoder_stages(smoke, teacher, student) | {
        "evaluate": Evaluate(models=tuple(LABELS), splits=(), batch_size=16, chunk=256),
        "export": Export(model="student"),
    }
    students = ("student", "alone")
    return GenerateText(
        title="",
        data=data,
        stages=stages,
        layers=1 if smoke else 3,
        report=Report(
            labels=dict(LABELS),
            curves=(Curve("Validation loss over steps", students, "validation", unigram=True),),
            comparisons=(Comparison("distilled against the text alone", *students),),
        ),
    )
