"""Arms of sequence-level distillation: one teacher, and students of what it says and writes."""

import dataclasses

from jaxkd.decode.beam import Beam
from jaxkd.distil.terms import HardLabels, SoftTargets
from jaxkd.models.seq2seq import Config
from jaxkd.stages.choose import Choose
from jaxkd.stages.distil import Distil
from jaxkd.stages.fine_tune import FineTune
from jaxkd.stages.generate import Generate
from jaxkd.stages.pretrain import Pretrain
from jaxkd.stages.student import Initialise
from jaxkd.train.optimiser import AdamW

# A student's logits are much of its work: with so many positions at once a step of seq_kd's student
# (64 rows, 4,000 entries, one core of a Xeon with AMX) took 0.09 s, with all at once 0.14; its
# teacher's took 0.47 and 0.53. Other sizes were not measured.
CHUNK = 256
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
    """How long the teacher and its students learn, on how much at a time."""

    teacher: int = 2700  # steps
    student: int = 1800
    more: int = 600  # of Seq-Inter, from what Seq-KD gave
    batch: int = 64
    width: int = 5  # of the beam
    room: int = 80  # tokens a target may have
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

    of = {
        each: f"{kind}_{each}" for each in (*LABELS, "generated", "best", "closest", "student_init")
    }

    def taught(start: str, targets: str, steps: int, rate: float) -> Distil:
        terms = {"soft_targets": SoftTargets(weight=0.5), "cross_entropy": HardLabels(weight=0.5)}
        return Distil(
            teacher=of["teacher"], student=start, terms=terms, targets=targets, chunk=CHUNK,
            **training(steps, rate),
        )  # fmt: skip

    def alone(start: str, targets: str, steps: int, rate: float) -> FineTune:
        return FineTune(source=start, targets=targets, chunk=CHUNK, **training(steps, rate))

    beam = Beam(width=size.width, n_best=size.width, max_tokens=size.room)
    start, best, closest, steps = of["student_init"], of["best"], of["closest"], size.student
    return {
        of["teacher"]: Pretrain(model=teacher, **training(size.teacher, rate / 2)),
        of["generated"]: Generate(teacher=of["teacher"], beam=beam),
        best: Choose(source=of["generated"], how="best"),
        closest: Choose(source=of["generated"], how="closest"),
        start: Initialise(model=student),
        of["alone"]: alone(start, "", steps, rate),
        of["word"]: taught(start, "", steps, rate),
        of["seq"]: alone(start, best, steps, rate),
        of["inter"]: alone(of["seq"], closest, size.more, rate / 4),
        of["both"]: taught(start, best, steps, rate),
        of["all"]: taught(of["both"], closest, size.more, rate / 4),
    }
