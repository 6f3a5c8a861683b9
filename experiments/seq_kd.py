"""Translation: does a small model learn more from its teacher's sentences than from a person's?

    python run.py --config experiments/seq_kd.py          # mini: Transformers
    python run.py --config experiments/seq_kd.py:lstm     # the same with LSTMs
    python run.py --config experiments/seq_kd.py:smoke    # about a minute, words to be reversed
    python run.py --config experiments/seq_kd.py:paper    # both kinds, 3 seeds
    python run.py --config experiments/seq_kd.py --config.stages.transformer_generated.beam.width=8

A teacher learns English to German on Multi30k and writes, with a beam, a translation of every
training sentence. Students of about a seventh of its size start from the same random weights, and
learn: the references alone; the teacher's distribution at every token of them (Word-KD); its best
translations (Seq-KD); then those of its hypotheses nearest the references (Seq-Inter); and Word-KD
on both. Each then translates the test split greedily and with a beam of five.

Original: Kim and Rush (2016), arXiv:1606.07947, LSTMs on WMT 2014 English-German: another and much
larger data set, so the rows are to be compared with each other, not with ours.
"""

import dataclasses

from configs import data, models
from jaxkd.core.names import did_you_mean
from jaxkd.decode.beam import Beam
from jaxkd.distil.terms import HardLabels, SoftTargets
from jaxkd.stages.choose import Choose
from jaxkd.stages.decode import Decode
from jaxkd.stages.distil import Distil
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.experiment import Comparison, Curve, Experiment, Reference, Report
from jaxkd.stages.fine_tune import FineTune
from jaxkd.stages.generate import Generate
from jaxkd.stages.pretrain import Pretrain
from jaxkd.stages.student import Initialise
from jaxkd.train.optimiser import AdamW


@dataclasses.dataclass
class Size:
    """What a variant is made of."""

    kinds: tuple[str, ...] = ("transformer",)
    model: str = "mini"
    teacher: int = 2700  # steps
    student: int = 1800
    more: int = 600  # of Seq-Inter, from what Seq-KD gave
    batch: int = 64
    width: int = 5  # of the beam
    room: int = 80  # tokens a translation may have
    evaluate_every: int = 450
    log_every: int = 20
    embedded: bool = False
    seeds: tuple[int, ...] = (0,)


VARIANTS = {
    "mini": Size(),
    "lstm": Size(kinds=("lstm",)),
    "paper": Size(
        kinds=("transformer", "lstm"), teacher=9000, student=9000, more=1800, seeds=(0, 1, 2)
    ),
    "smoke": Size(
        model="smoke", teacher=20, student=10, more=5, batch=16, width=2, room=16,
        evaluate_every=10, log_every=5, embedded=True,
    ),
}  # fmt: skip

# Greedy and beam BLEU of Kim and Rush, English to German: teacher 4 x 1000, students 2 x 500.
ORIGINAL = {
    "teacher": (17.7, 19.5),
    "alone": (14.7, 17.6),
    "word": (15.4, 17.7),
    "seq": (18.9, 19.0),
    "all": (18.8, 19.2),
}
LABELS = {
    "teacher": "teacher",
    "alone": "student, references",
    "word": "student, Word-KD",
    "seq": "student, Seq-KD",
    "inter": "student, Seq-KD, then Seq-Inter",
    "both": "student, Word-KD on Seq-KD's targets",
    "all": "student, Word-KD, Seq-KD and Seq-Inter",
}


def get_config(variant: str = "mini") -> Experiment:
    """The experiment at one size, one of VARIANTS."""
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r} of seq_kd. {did_you_mean(variant, VARIANTS)}")
    size = VARIANTS[variant]
    stages: dict[str, object] = {}
    for kind in size.kinds:
        stages |= _stages(size, kind)
    shown = tuple(f"{kind}_{name}" for kind in size.kinds for name in LABELS)
    beam = Beam(width=size.width, max_tokens=size.room)
    stages["evaluate"] = Evaluate(models=shown, splits=("test",), batch_size=64)
    stages["decode"] = Decode(models=shown, splits=("test",), beam=beam)
    return Experiment(
        title="Sequence-level distillation: a teacher's translations against a person's",
        data=data.multi30k(embedded=size.embedded),
        stages=stages,
        seeds=size.seeds,
        report=_report(size.kinds),
    )


def _stages(size: Size, kind: str) -> dict[str, object]:
    """All of one kind, their names beginning with it."""

    def training(steps: int, rate: float) -> dict[str, object]:
        return dict(
            steps=steps,
            batch_size=size.batch,
            optimiser=AdamW(learning_rate=rate),
            evaluate_every=size.evaluate_every,
            save_every=size.evaluate_every,
            log_every=size.log_every,
            evaluate_rows=64 if size.embedded else 512,
        )

    rate = {"transformer": 2e-3, "lstm": 3e-3}[kind]
    name = {
        each: f"{kind}_{each}" for each in (*LABELS, "generated", "best", "closest", "seedling")
    }
    start, teacher = name["seedling"], name["teacher"]

    def taught(student: str, targets: str, steps: int, rate: float) -> Distil:
        terms = {"soft_targets": SoftTargets(weight=0.5), "cross_entropy": HardLabels(weight=0.5)}
        return Distil(
            teacher=teacher, student=student, terms=terms, targets=targets, chunk=256,
            **training(steps, rate),
        )  # fmt: skip

    def alone(student: str, targets: str, steps: int, rate: float) -> FineTune:
        return FineTune(source=student, targets=targets, **training(steps, rate))

    best, closest = name["best"], name["closest"]
    return {
        teacher: Pretrain(
            model=models.translator(kind, size.model, "teacher"),
            **training(size.teacher, rate / 2),
        ),
        name["generated"]: Generate(
            teacher=teacher,
            beam=Beam(width=size.width, n_best=size.width, max_tokens=size.room),
        ),
        best: Choose(source=name["generated"], how="best"),
        closest: Choose(source=name["generated"], how="closest"),
        start: Initialise(model=models.translator(kind, size.model, "student")),
        name["alone"]: alone(start, "", size.student, rate),
        name["word"]: taught(start, "", size.student, rate),
        name["seq"]: alone(start, best, size.student, rate),
        name["inter"]: alone(name["seq"], closest, size.more, rate / 4),
        name["both"]: taught(start, best, size.student, rate),
        name["all"]: taught(name["both"], closest, size.more, rate / 4),
    }


def _report(kinds: tuple[str, ...]) -> Report:
    told = {"transformer": "Transformer", "lstm": "LSTM"}
    labels = {
        f"{kind}_{name}": f"{told[kind]} {label}"
        for kind in kinds
        for name, label in LABELS.items()
    }
    curves, comparisons, references = [], [], []
    for kind in kinds:
        students = tuple(f"{kind}_{name}" for name in ("alone", "word", "seq", "both"))
        title = f"{told[kind]} students: validation loss over steps"
        curves.append(Curve(title, students, "validation", unigram=True))
        for way in ("greedy", "beam"):
            comparisons += [
                Comparison(
                    f"{told[kind]}: {LABELS[better]} against references ({way})",
                    f"{kind}_{better}", f"{kind}_alone", "test", f"bleu_{way}",
                )
                for better in ("word", "seq", "all")
            ]  # fmt: skip
        references += [
            Reference(f"{LABELS[name]}, {way}", value, f"{kind}_{name}", "test", f"bleu_{way}")
            for name, values in ORIGINAL.items()
            for way, value in zip(("greedy", "beam"), values, strict=True)
        ]
    return Report(
        labels=labels,
        curves=tuple(curves),
        comparisons=tuple(comparisons),
        references=tuple(references),
        reference_source="Kim and Rush (2016), WMT 2014 English-German, LSTMs",
        split="test",
    )
