"""Arms of sequence-level distillation: one teacher, and students of its outputs and its texts."""

import dataclasses

from jaxkd.decode.beam import Beam
from jaxkd.distil.terms import HardLabels, SoftTargets
from jaxkd.models.seq2seq import Config
from jaxkd.stages.choose import Choose
from jaxkd.stages.generate import Generate
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.train import Train
from jaxkd.train.optimiser import AdamW

# The logits are much of a student's work: with this many positions at once a step of seq_kd's
# student (64 rows, 4,000 tokens, one core of a Xeon with AMX) took 0.09 s, with all at once 0.14;
# its teacher's took 0.47 and 0.53. Other sizes were not measured.
CHUNK = 256
# Name of the random stream of students' initial weights. Another name draws other weights, and the
# numbers under results/ are those of this one.
STREAM = "seedling"
LABELS = {
    "teacher": "teacher",
    "alone": "student, references",
    "word": "student, Word-KD",
    "seq": "student, Seq-KD",
    "inter": "student, Seq-KD, then Seq-Inter",
    "both": "student, Word-KD on Seq-KD's targets",
    "all": "student, Word-KD, Seq-KD and Seq-Inter",
}


@dataclasses.dataclass
class Size:
    """Steps and batch sizes of the teacher and its students."""

    teacher: int = 2700  # steps
    student: int = 1800
    more: int = 600  # of Seq-Inter, from the student of Seq-KD
    batch: int = 64
    width: int = 5  # of the beam
    room: int = 80  # tokens of a target, at most
    evaluate_every: int = 450
    evaluate_rows: int = 512
    log_every: int = 20


def arms(kind: str, teacher: Config, student: Config, size: Size, rate: float) -> dict[str, object]:
    """The stages of a teacher and all its students, their names beginning with `kind`.

    Students start from the same random weights, and see as many rows in the same order; Seq-Inter
    goes on from Seq-KD's student, as its authors do.

    Args:
      rate: the students' learning rate; the teacher's is half of it, Seq-Inter's a quarter.
    Source: Kim and Rush (2016), arXiv:1606.07947.
    """

    def training(steps: int, rate: float) -> dict[str, object]:
        return dict(
            steps=steps,
            batch_size=size.batch,
            optimiser=AdamW(learning_rate=rate),
            evaluate_every=size.evaluate_every,
            evaluate_rows=size.evaluate_rows,
            save_every=size.evaluate_every,
            log_every=size.log_every,
        )

    others = ("teacher_init", "generated", "best", "closest", "student_init")
    of = {name: f"{kind}_{name}" for name in (*LABELS, *others)}

    def distilled(start: str, targets: str, steps: int, rate: float) -> Train:
        terms = {"soft_targets": SoftTargets(weight=0.5), "cross_entropy": HardLabels(weight=0.5)}
        return Train(
            source=start, teacher=of["teacher"], terms=terms, targets=targets, chunk=CHUNK,
            **training(steps, rate),
        )  # fmt: skip

    def alone(start: str, targets: str, steps: int, rate: float) -> Train:
        return Train(source=start, targets=targets, chunk=CHUNK, **training(steps, rate))

    beam = Beam(width=size.width, n_best=size.width, max_tokens=size.room)
    start, best, closest, steps = of["student_init"], of["best"], of["closest"], size.student
    return {
        of["teacher_init"]: Initialise(model=teacher, stream=of["teacher"]),
        of["teacher"]: Train(source=of["teacher_init"], **training(size.teacher, rate / 2)),
        of["generated"]: Generate(teacher=of["teacher"], beam=beam),
        best: Choose(source=of["generated"], how="best"),
        closest: Choose(source=of["generated"], how="closest"),
        start: Initialise(model=student, stream=f"{kind}_{STREAM}"),
        of["alone"]: alone(start, "", steps, rate),
        of["word"]: distilled(start, "", steps, rate),
        of["seq"]: alone(start, best, steps, rate),
        of["inter"]: alone(of["seq"], closest, size.more, rate / 4),
        of["both"]: distilled(start, best, steps, rate),
        of["all"]: distilled(of["both"], closest, size.more, rate / 4),
    }
