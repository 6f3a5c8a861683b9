"""CTC: should a student copy its teacher's label at each position, or its teacher's hypotheses?

    python run.py --config experiments/ctc.py          # mini: CPU
    python run.py --config experiments/ctc.py:smoke    # about a minute, a few rows
    python run.py --config experiments/ctc.py --config.stages.labels.n=4

Each letter of a sentence is repeated one to three times and 15% of the copies are replaced
(data/corpora/noisy_letters.py); encoders with a CTC head recover the sentence. Students of a
seventh of the teacher's size start from the same random weights and learn: the references alone;
also the teacher's distribution at every position (frame-level); also the teacher's likeliest
hypotheses of each sentence, weighted by their probabilities (sequence-level). The error rate is
that of letters, for the likeliest path and for a beam that sums over paths.

mini was never run whole: its sizes and rates are a first guess, and no result is claimed.

Original: Huang et al. (Interspeech 2018), "Knowledge Distillation for Sequence Model", on speech:
they find hypotheses better than frames, which force the teacher's timing on the student.
"""

import dataclasses

from configs import data, models
from configs.sequence import STREAM
from jaxkd.core.names import did_you_mean
from jaxkd.decode.beam import Beam
from jaxkd.distil.terms import CtcHypotheses, CtcLabels, FrameTargets
from jaxkd.runs.experiment import Comparison, Curve, Experiment, Report
from jaxkd.stages.decode import Decode
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.label import Label
from jaxkd.stages.train import Train
from jaxkd.train.optimiser import AdamW

LABELS = {
    "teacher": "teacher",
    "alone": "student, references",
    "frames": "student, references and frames",
    "hypotheses": "student, references and hypotheses",
}


@dataclasses.dataclass
class Size:
    """Steps, batch sizes and rows."""

    teacher: int = 3000  # steps
    student: int = 3000
    batch: int = 32
    every: int = 500
    width: int = 8  # of the beam
    rows: int = 0  # of each split; 0: all


SIZES = {
    "mini": Size(),
    "smoke": Size(teacher=20, student=10, batch=16, every=10, width=3, rows=64),
}


def get_config(variant: str = "mini") -> Experiment:
    """The experiment at one size, one of SIZES."""
    if variant not in SIZES:
        raise ValueError(f"no variant {variant!r} of ctc. {did_you_mean(variant, SIZES)}")
    size = SIZES[variant]

    def training(steps: int, rate: float) -> dict[str, object]:
        return dict(
            steps=steps, batch_size=size.batch, save_every=size.every, evaluate_every=size.every,
            evaluate_rows=256, optimiser=AdamW(learning_rate=rate),
        )  # fmt: skip

    def distilled(**options: object) -> Train:
        return Train(
            source="student_init", teacher="teacher", **options, **training(size.student, 2e-3)
        )

    # Frequencies of labels say nothing about how often a position has a blank.
    no_bias = dict(unigram_bias=False)
    stages: dict[str, object] = {
        "teacher_init": Initialise(
            model=models.bert_ctc(variant, "teacher"), stream="teacher", **no_bias
        ),
        "teacher": Train(source="teacher_init", **training(size.teacher, 1e-3)),
        "labels": Label(teacher="teacher", kind="hypotheses", n=size.width, width=size.width),
        "student_init": Initialise(
            model=models.bert_ctc(variant, "student"), stream=STREAM, **no_bias
        ),
        "alone": Train(source="student_init", **training(size.student, 2e-3)),
        "frames": distilled(terms={"ctc": CtcLabels(weight=0.5), "frames": FrameTargets()}),
        "hypotheses": distilled(
            terms={"ctc": CtcLabels(weight=0.5), "hypotheses": CtcHypotheses(weight=0.5)},
            labels="labels",
        ),
        "evaluate": Evaluate(models=tuple(LABELS), splits=("test",), batch_size=64),
        "decode": Decode(
            models=tuple(LABELS), metrics=("cer", "exact"), beam=Beam(width=size.width)
        ),
    }
    students = tuple(name for name in LABELS if name != "teacher")
    return Experiment(
        title="CTC: a teacher's timing or a teacher's hypotheses",
        data=data.noisy_letters(size.rows),
        stages=stages,
        report=Report(
            labels=dict(LABELS),
            curves=(Curve("Students: validation loss over steps", students, "validation"),),
            comparisons=tuple(
                Comparison(title, *pair, "test", f"cer_{strategy}")
                for strategy in ("greedy", "beam")
                for title, pair in {
                    f"frames against references ({strategy})": ("frames", "alone"),
                    f"hypotheses against references ({strategy})": ("hypotheses", "alone"),
                    f"hypotheses against frames ({strategy})": ("hypotheses", "frames"),
                }.items()
            ),
            split="test",
        ),
    )
