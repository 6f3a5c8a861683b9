"""Language models: does a student learn more from a teacher's words than from the text alone?

    python run.py --config experiments/language_model.py          # mini: CPU, 20 minutes a seed
    python run.py --config experiments/language_model.py:smoke    # about a minute, embedded text
    python run.py --config experiments/language_model.py:llama    # Llama-2-7b; an accelerator
    python run.py --config experiments/language_model.py \
        --config.stages.narrow_distilled.terms.soft_targets.temperature=2

A decoder of Llama's kind is trained on WikiText-2 from scratch; students of two sizes start from
the same random weights and are trained on the text, with the teacher's distribution at every word
(word-level distillation) and without. Logits are never whole in memory (losses/fused.py).

mini (3 seeds, validation perplexity): teacher 120.7, students of a quarter of its width 195.4 alone
and 149.2 distilled, of half its width 156.4 and 123.9. Rates are first guesses, no arm is tuned.
llama reads Llama-2-7b from the hub (which asks for its licence) and was never run: it is written
for several accelerators, on which weights are spread and the teacher's are held in bfloat16.

Original: efficient distillation of language models (COMS 6998), Llama-2-7b on WikiText: perplexity
22.13, accuracy 0.434, among five 0.655; its students 226.51 and 182.03, 0.235 and 0.254, 0.394 and
0.419. Their tokens are Llama's and their teacher was trained by others: the numbers stand beside
ours, and are not comparable.
"""

import dataclasses

from configs import data, models
from jaxkd.core.names import did_you_mean
from jaxkd.data.rows.text import CausalText
from jaxkd.distil.terms import HardLabels, SoftTargets
from jaxkd.runs.experiment import Comparison, Curve, Experiment, Reference, Report
from jaxkd.stages.distil import Distil
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.fine_tune import FineTune
from jaxkd.stages.load import Load
from jaxkd.stages.pretrain import Pretrain
from jaxkd.stages.student import Initialise
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

    def training(of: str) -> dict[str, object]:
        """A copy: flags change one stage's settings, and others must not share them."""
        given = settings[of]
        own = {k: dataclasses.replace(v) for k, v in given.items() if k == "optimiser"}
        return {"chunk": 256} | given | own

    given = settings["teacher"]
    stages: dict[str, object] = {
        "teacher": dataclasses.replace(given)
        if isinstance(given, Load)
        else Pretrain(model=models.llama(variant, "teacher"), **training("teacher"))
    }
    labels = {"teacher": "teacher"}
    for size, what in STUDENTS.items():
        stages[f"{size}_student_init"] = Initialise(model=models.llama(variant, size))
        stages[f"{size}_alone"] = FineTune(source=f"{size}_student_init", **training("student"))
        stages[f"{size}_distilled"] = Distil(
            teacher="teacher",
            student=f"{size}_student_init",
            terms={"soft_targets": SoftTargets(), "cross_entropy": HardLabels(weight=0.5)},
            teacher_dtype="bfloat16" if isinstance(given, Load) else "float32",
            **training("student"),
        )
        labels[f"{size}_alone"] = f"student, {what}, the text alone"
        labels[f"{size}_distilled"] = f"student, {what}, distilled"
    trained = tuple(labels)
    stages["evaluate"] = Evaluate(models=trained, chunk=256)
    return Experiment(
        title="Language models: a teacher's words against the text alone",
        data=dataclasses.replace(settings["data"]),
        stages=stages,
        report=_report(labels, trained[1:], trained=not isinstance(given, Load)),
    )


def _report(labels: dict[str, str], students: tuple[str, ...], *, trained: bool) -> Report:
    original = {
        "teacher": (22.13, 0.434, 0.655),
        "narrow_distilled": (226.51, 0.235, 0.394),
        "wide_distilled": (182.03, 0.254, 0.419),
    }
    metrics = ("perplexity", "accuracy", "accuracy_5")
    shown = [("Students", students)] + ([("Teacher", ("teacher",))] if trained else [])
    curves = [
        Curve(f"{who}: validation loss over steps", models, "validation", unigram=True)
        for who, models in shown
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
