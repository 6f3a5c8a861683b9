"""Robust initialisation: does a teacher trained with LayerDrop make a better pruned student?

    python run.py --config experiments/wikitext.py          # mini: 2 CPU cores, 18 minutes
    python run.py --config experiments/wikitext.py:converged  # mini's students, to the end
    python run.py --config experiments/wikitext.py:smoke    # about a minute, embedded text
    python run.py --config experiments/wikitext.py:paper    # BERT's width, 3 drop rates, 3 seeds
    python run.py --config experiments/wikitext.py:base     # bert-base-uncased -> 6 layers
    python run.py --config experiments/wikitext.py --config.stages.student_plain.steps=800

A BERT masked language model is trained on WikiText-2 without LayerDrop and with it; each is pruned
to every other layer and distilled with DistilBERT's triple loss. A third student starts from
random weights. All see the same rows in the same order with the same masks, for the same number of
steps.

mini (4 -> 2 layers of width 128, 3 seeds, validation loss in nats): teachers 5.95 and 5.97 with
LayerDrop, pruned 6.08 and 6.00, students 5.96 and 5.97, student from random weights 6.47; a model
that ignores context has 6.70.
converged (2 seeds): pruned students 5.92 and 5.90 with LayerDrop after 3,000 to 6,000 steps, the
student from random weights 5.56 after 6,000, still falling.

Original: "A Robust Initialization Method for Knowledge Distillation" (Columbia COMS 6998).
"""

import dataclasses

from configs import data, models, recipes
from configs.sequence import STREAM
from jaxkd.core.names import did_you_mean
from jaxkd.data.rows.masking import Masking
from jaxkd.runs.experiment import Comparison, Curve, Experiment, Reference, Report
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.export import Export
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.load import Load
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train
from jaxkd.train.optimiser import AdamW


@dataclasses.dataclass
class Size:
    """What a variant is made of."""

    model: str
    rates: tuple[float, ...]  # LayerDrop; the first is the plain teacher
    teacher: dict[str, object]
    student: dict[str, object]
    layers: int = 2  # of the random student
    length: int = 128
    evaluate_batch: int = 32
    source: str = ""  # pretrained weights for the teachers
    embedded: bool = False
    rows: int = 0
    seeds: tuple[int, ...] = (0,)


# In minutes of training, the number of masked tokens and the distances that an untrained attention
# has to learn are the limit: 40% are masked (Wettig et al., 2022), and rows are short. Students are
# trained with the masks they are evaluated with; see docs/masked_lm.md for other findings.
MINI = Size(
    model="mini",
    rates=(0.0, 0.1),
    teacher=dict(
        steps=1400,
        batch_size=32,
        save_every=350,
        evaluate_every=350,
        evaluate_rows=1024,
        optimiser=AdamW(learning_rate=3e-3),
        masking=Masking(share=0.4, smoothing=0.0),
    ),
    student=dict(
        steps=250,
        batch_size=32,
        evaluate_every=50,
        evaluate_rows=1024,
        optimiser=AdamW(learning_rate=1e-3),
        masking=Masking(smoothing=0.0),
    ),
    length=32,
    evaluate_batch=128,
)

VARIANTS = {
    "smoke": Size(
        model="tiny",
        rates=(0.0, 0.1),
        teacher=dict(steps=30, batch_size=8, log_every=5, evaluate_rows=32),
        student=dict(steps=20, batch_size=8, log_every=5, evaluate_rows=32),
        layers=1,
        length=32,
        embedded=True,
        rows=256,
    ),
    "mini": MINI,
    "converged": dataclasses.replace(
        MINI,
        student=dict(
            steps=6000, batch_size=32, evaluate_every=250, evaluate_rows=2048, patience=3,
            optimiser=AdamW(learning_rate=1e-3, warmup=0.02, decay="constant"),
            masking=Masking(smoothing=0.0),
        ),
    ),
    "paper": Size(
        model="paper",
        rates=(0.0, 0.1, 0.2),
        teacher=dict(
            steps=20_000, batch_size=32, evaluate_every=250, evaluate_rows=0, patience=4,
            optimiser=AdamW(learning_rate=1e-4, warmup=0.02, decay="constant"),
        ),
        student=dict(
            steps=20_000, batch_size=32, evaluate_every=250, evaluate_rows=0, patience=4,
            optimiser=AdamW(learning_rate=1e-4, warmup=0.02, decay="constant"),
        ),
        seeds=(0, 1, 2),
    ),
    "base": Size(
        model="base",
        rates=(0.0, 0.1),
        teacher=dict(steps=2_000, batch_size=64, optimiser=AdamW(learning_rate=5e-5)),
        student=dict(steps=10_000, batch_size=64, optimiser=AdamW(learning_rate=2e-4)),
        layers=6,
        source="google-bert/bert-base-uncased",
    ),
}  # fmt: skip

# The original's table; its students' loss is the weighted sum of the three terms.
ORIGINAL = {0.0: (6.5397, 19.95, 20.06), 0.1: (6.5763, 19.77, 19.88)}


def get_config(variant: str = "mini") -> Experiment:
    """The experiment at one size, one of VARIANTS."""
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r} of wikitext. {did_you_mean(variant, VARIANTS)}")
    size = VARIANTS[variant]
    stages: dict[str, object] = {}
    if size.source:
        stages["pretrained"] = Load(name=size.source, head="masked_lm")
    for rate in size.rates:
        teacher = f"teacher_{_arm(rate)}"
        if not size.source:
            stages[f"{teacher}_init"] = Initialise(model=models.bert(size.model), stream=teacher)
        stages[teacher] = Train(
            source="pretrained" if size.source else f"{teacher}_init",
            layer_drop=rate,
            **({"masking": recipes.bert_masking()} | size.teacher),
        )
    for rate in size.rates:
        stages[f"student_init_{_arm(rate)}"] = Prune(source=f"teacher_{_arm(rate)}")
    stages["student_init_random"] = Initialise(
        like="teacher_plain", layers=size.layers, stream=f"{STREAM}_random"
    )
    arms = [_arm(rate) for rate in size.rates] + ["random"]
    for arm in arms:
        stages[f"student_{arm}"] = Train(
            source=f"student_init_{arm}",
            teacher="teacher_plain" if arm == "random" else f"teacher_{arm}",
            terms=recipes.distilbert(),
            freeze=("embed/position",),
            **size.student,
        )
    teachers = tuple(f"teacher_{_arm(rate)}" for rate in size.rates)
    student_inits = tuple(f"student_init_{arm}" for arm in arms)
    students = tuple(f"student_{arm}" for arm in arms)
    stages["evaluate"] = Evaluate(
        models=teachers + student_inits + students, batch_size=size.evaluate_batch
    )
    stages["export"] = Export(model="student_robust")
    return Experiment(
        title="Robust initialisation: does a teacher trained with LayerDrop make a better student?",
        data=data.embedded(size.length, size.rows)
        if size.embedded
        else data.wikitext2(size.length),
        stages=stages,
        seeds=size.seeds,
        report=_report(size, teachers, students),
    )


def _arm(rate: float) -> str:
    """plain without LayerDrop, robust with the original's 0.1, robust_02 with 0.2."""
    if rate == 0:
        return "plain"
    return "robust" if rate == 0.1 else f"robust_{round(10 * rate):02d}"


def _report(size: Size, teachers: tuple[str, ...], students: tuple[str, ...]) -> Report:
    labels, references = {}, []
    for rate in size.rates:
        arm = _arm(rate)
        labels[f"teacher_{arm}"] = f"teacher, LayerDrop {rate:g}"
        labels[f"student_init_{arm}"] = f"pruned from LayerDrop {rate:g}, not distilled"
        labels[f"student_{arm}"] = f"student, pruned from LayerDrop {rate:g}"
        if rate in ORIGINAL:
            teacher, last, mean = ORIGINAL[rate]
            what = f"LayerDrop {rate:g}"
            references += [
                Reference(f"teacher's evaluation loss, {what}", teacher, f"teacher_{arm}"),
                Reference(f"student's last loss, {what}", last, f"student_{arm}", "train"),
                Reference(
                    f"student's mean loss, {what}", mean, f"student_{arm}", "train", reduce="mean"
                ),
            ]
    labels |= {
        "student_init_random": "random, not trained",
        "student_random": "student, random start",
    }
    against = [
        ("student_robust", "student_plain", "LayerDrop 0.1 against none"),
        ("student_plain", "student_random", "pruned against random start"),
        ("student_robust", "student_random", "LayerDrop 0.1 against random start"),
    ]
    return Report(
        labels=labels,
        curves=(
            Curve("Students: objective over steps", students),
            Curve("Students: validation loss over steps", students, "validation", unigram=True),
            Curve("Teachers: validation loss over steps", teachers, "validation", unigram=True),
        ),
        comparisons=tuple(
            Comparison(title, model, baseline, "validation", metric)
            for model, baseline, title in against
            for metric in ("loss", "kl")
        ),
        references=tuple(references),
        reference_source="A Robust Initialization Method for Knowledge Distillation, COMS 6998",
    )
