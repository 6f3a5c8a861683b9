"""Arithmetic word problems: what should a small model learn from?

    python run.py --config experiments/gsm8k.py          # mini: from scratch, CPU
    python run.py --config experiments/gsm8k.py:qwen     # Qwen2.5, 7B to 0.5B; accelerators
    python run.py --config experiments/gsm8k.py:smoke    # about a minute, a word-reversal task
    python run.py --config experiments/gsm8k.py --config.stages.on_policy.on_policy.share=1

A teacher learns GSM8K's answers and writes its own for every training question. Students with the
same initial weights learn, for the same number of steps and rows: the references (SFT); the
teacher's distribution at every token of them (Word-KD); the teacher's own answers where they are
right, and the references elsewhere (Seq-KD); and, after SFT for half of the steps, the teacher's
distribution over the student's own samples in half of the batches (on-policy). An answer is right
if its number after #### is right.

Models from random weights cannot be expected to reason, and mini's do not (results/README.md).
qwen reads its models from the hub and was never run.

Original: efficient distillation of language models (COMS 6998) says of GSM8K only that its small
students fail.
"""

import dataclasses

from configs import data, models
from configs.sequence import STREAM
from jaxkd.core.names import did_you_mean
from jaxkd.decode.beam import Beam
from jaxkd.distil.on_policy import OnPolicy
from jaxkd.distil.terms import Divergence, HardLabels, SoftTargets
from jaxkd.runs.experiment import Comparison, Curve, Experiment, Report
from jaxkd.stages.choose import Choose
from jaxkd.stages.decode import Decode
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.generate import Generate
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.load import Load
from jaxkd.stages.train import Train
from jaxkd.train.optimiser import AdamW

LABELS = {
    "teacher": "teacher, references",
    "sft": "student, references (SFT)",
    "word": "student, Word-KD",
    "seq": "student, Seq-KD, right answers",
    "on_policy": "student, SFT, then on-policy",
}


@dataclasses.dataclass
class Size:
    """Steps, batch sizes, and lengths of answers."""

    teacher: int  # steps
    student: int
    batch: int
    rates: tuple[float, float]  # learning rates of the teacher and of the students
    width: int = 4  # of the beam
    room: int = 256  # tokens of an answer, at most
    every: int = 400  # steps between evaluations and checkpoints
    rows: int = 0  # test questions that are decoded; 0: all
    parallel: str = "auto"

    def training(self, steps: int, rate: float) -> dict[str, object]:
        return dict(
            steps=steps, batch_size=self.batch, save_every=self.every, evaluate_every=self.every,
            evaluate_rows=256, chunk=256, parallel=self.parallel,
            optimiser=AdamW(learning_rate=rate),
        )  # fmt: skip


SIZES = {
    "smoke": Size(10, 6, 16, (1e-3, 1e-3), width=2, room=16, every=5, rows=32),
    "mini": Size(500, 400, 32, (1e-3, 2e-3), every=100, rows=640),
    "qwen": Size(700, 700, 32, (1e-5, 1e-5), every=350, parallel="sharded"),
}
QWEN = {"teacher": "Qwen/Qwen2.5-7B", "student": "Qwen/Qwen2.5-0.5B"}


def get_config(variant: str = "mini") -> Experiment:
    """The experiment at one size, one of SIZES."""
    if variant not in SIZES:
        raise ValueError(f"no variant {variant!r} of gsm8k. {did_you_mean(variant, SIZES)}")
    size = SIZES[variant]
    of_teacher, of_student = size.rates

    def initial(role: str, stream: str = "") -> object:
        if variant == "qwen":
            return Load(name=QWEN[role], compute="bfloat16")
        return Initialise(model=models.llama_gsm8k(variant, role), stream=stream)

    def distilled(source: str, steps: int, terms: dict[str, object], **options: object) -> Train:
        return Train(
            source=source, teacher="teacher", terms=terms, **size.training(steps, of_student),
            **options,
        )  # fmt: skip

    beam = Beam(width=size.width, n_best=size.width, max_tokens=size.room)
    kd = {"soft_targets": SoftTargets(weight=0.5), "cross_entropy": HardLabels(weight=0.5)}
    # Generalised Jensen-Shannon, as in GKD; in the other batches it is that over the references.
    gkd = {"jensen_shannon": Divergence(kind="jensen_shannon", beta=0.5)}
    half = size.student // 2
    stages: dict[str, object] = {
        "teacher_init": initial("teacher", stream="untaught"),
        "teacher": Train(source="teacher_init", **size.training(size.teacher, of_teacher)),
        "generated": Generate(teacher="teacher", beam=beam, batch_size=32),
        "right": Choose(source="generated", how="right"),
        "student_init": initial("student", stream=STREAM),
        "sft": Train(source="student_init", **size.training(size.student, of_student)),
        "word": distilled("student_init", size.student, kd),
        "seq": Train(
            source="student_init", targets="right", **size.training(size.student, of_student)
        ),
        "warm": Train(source="student_init", **size.training(half, of_student)),
        "on_policy": distilled("warm", size.student - half, gkd, on_policy=OnPolicy(share=0.5)),
    }
    evaluated = tuple(LABELS)
    stages["evaluate"] = Evaluate(models=evaluated, splits=("test",), batch_size=32, chunk=256)
    stages["decode"] = Decode(
        models=evaluated,
        metrics=("answer",),
        beam=dataclasses.replace(beam, n_best=1),
        batch_size=32,
        rows=size.rows,
    )
    tokenizer = QWEN["student"] if variant == "qwen" else "trained"
    return Experiment(
        title="Arithmetic word problems: references, a teacher's answers, or the student's own",
        data=data.gsm8k(tokenizer, embedded=variant == "smoke"),
        stages=stages,
        report=_report(),
    )


def _report() -> Report:
    curves = (
        Curve("Students: validation loss over steps", ("sft", "word", "seq"), "validation"),
        Curve("On-policy: divergence over steps", ("on_policy",)),
    )
    comparisons = tuple(
        Comparison(f"{LABELS[name]} against SFT", name, "sft", "test", "answer_greedy")
        for name in ("word", "seq", "on_policy")
    )
    return Report(dict(LABELS), curves, comparisons, split="test")
