"""Language models: does a student learn more from a teacher's distribution than from the text?

    python run.py --config experiments/language_model.py          # mini: CPU, 20 minutes a seed
    python run.py --config experiments/language_model.py:smoke    # about a minute, embedded text
    python run.py --config experiments/language_model.py:llama    # Llama-2-7b; an accelerator
    python run.py --config experiments/language_model.py \
        --config.stages.narrow_distilled.terms.soft_targets.temperature=2

A Llama decoder is trained on WikiText-2 from scratch; students of two sizes start from the same
random weights and are trained on the text, with the teacher's distribution at every token
(word-level distillation) and without. The logits are never in memory all at once (losses/fused.py).

mini (3 seeds, validation perplexity): teacher 120.7, students of a quarter of its width 195.4 alone
and 149.2 distilled, of half its width 156.4 and 123.9. Learning rates were not tuned.
llama reads Llama-2-7b from the hub (where its licence must be accepted) and was never run: it is
written for several accelerators, with sharded weights and a teacher in bfloat16.

Original: efficient distillation of language models (COMS 6998), Llama-2-7b on WikiText: perplexity
22.13, accuracy 0.434, top-5 0.655; its students 226.51 and 182.03, 0.235 and 0.254, 0.394 and
0.419. Their tokens are Llama's and their teacher was pretrained: the numbers are shown next to ours
and are not comparable.
"""

from configs import data, models
from configs.sequence import STREAM
from jaxkd.core.names import did_you_mean
from jaxkd.data.rows.text import CausalText
from jaxkd.distil.terms import HardLabels, SoftTargets
from jaxkd.runs.experiment import Comparison, Curve, Experiment, Reference, Report
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.load import Load
from jaxkd.stages.train import Train
from jaxkd.train.optimiser import AdamW

STUDENTS = {"narrow": "a quarter of the width", "wide": "half the width"}

SETTINGS = {
    "smoke": dict(
        data=data.embedded(length=33, rows=256, kind=CausalText),
        teacher=dict(steps=30, batch_size=8, log_every=5, evaluate_rows=32),
        student=dict(steps=20, batch_size=8, log_every=5, evaluate_rows=32),
    ),
    "mini": dict(
        data=data.causal_wikitext2(length=65),
        teacher=dict(
            steps=1200, batch_size=32, save_every=300, evaluate_every=300,
            evaluate_rows=512, optimiser=AdamW(learning_rate=2e-3),
        ),
        student=dict(
            steps=800, batch_size=32, save_every=200, evaluate_every=200,
            evaluate_rows=512, optimiser=AdamW(learning_rate=3e-3),
        ),
    ),
    "llama": dict(
        data=data.llama_wikitext2(),
        teacher=Load(name="meta-llama/Llama-2-7b-hf", compute="bfloat16"),
        student=dict(
            steps=2000, batch_size=32, save_every=500, evaluate_every=500, evaluate_rows=64,
            parallel="sharded", optimiser=AdamW(learning_rate=3e-4),
        ),
    ),
}  # fmt: skip


def get_config(variant: str = "mini") -> Experiment:
    """The experiment at one size, one of SETTINGS."""
    if variant not in SETTINGS:
        raise ValueError(
            f"no variant {variant!r} of language_model. {did_you_mean(variant, SETTINGS)}"
        )
    settings = SETTINGS[variant]

    teacher, student = settings["teacher"], {"chunk": 256} | settings["student"]
    pretrained = isinstance(teacher, Load)
    if pretrained:
        stages: dict[str, object] = {"teacher": teacher}
    else:
        shape = models.llama(variant, "teacher")
        stages = {
            "teacher_init": Initialise(model=shape, stream="teacher"),
            "teacher": Train(source="teacher_init", **({"chunk": 256} | teacher)),
        }
    labels = {"teacher": "teacher"}
    for size, what in STUDENTS.items():
        stages[f"{size}_student_init"] = Initialise(
            model=models.llama(variant, size), stream=f"{size}_{STREAM}"
        )
        stages[f"{size}_alone"] = Train(source=f"{size}_student_init", **student)
        stages[f"{size}_distilled"] = Train(
            source=f"{size}_student_init",
            teacher="teacher",
            terms={"soft_targets": SoftTargets(), "cross_entropy": HardLabels(weight=0.5)},
            teacher_dtype="bfloat16" if pretrained else "float32",
            **student,
        )
        labels[f"{size}_alone"] = f"student, {what}, the text alone"
        labels[f"{size}_distilled"] = f"student, {what}, distilled"
    trained = tuple(labels)
    stages["evaluate"] = Evaluate(models=trained, chunk=256)
    return Experiment(
        title="Language models: a teacher's distribution against the text alone",
        data=settings["data"],
        stages=stages,
        report=_report(labels, trained[1:], trained=not pretrained),
    )


def _report(labels: dict[str, str], students: tuple[str, ...], *, trained: bool) -> Report:
    original = {
        "teacher": (22.13, 0.434, 0.655),
        "narrow_distilled": (226.51, 0.235, 0.394),
        "wide_distilled": (182.03, 0.254, 0.419),
    }
    metrics = ("perplexity", "accuracy", "accuracy_5")
    plots = [("Students", students)] + ([("Teacher", ("teacher",))] if trained else [])
    curves = [
        Curve(f"{who}: validation loss over steps", models, "validation", unigram=True)
        for who, models in plots
    ]
    return Report(
        labels=labels,
        curves=tuple(curves),
        comparisons=tuple(
            Comparison(f"{size}: distilled against alone", f"{size}_distilled", f"{size}_alone")
            for size in STUDENTS
        ),
        references=tuple(
            Reference(f"{metric} of the {labels[model]}", value, model, metric=metric)
            for model, values in original.items()
            for metric, value in zip(metrics, values, strict=True)
        ),
        reference_source="Efficient knowledge distillation of language models, COMS 6998",
    )
