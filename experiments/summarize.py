"""Summaries: does a small model learn more from its teacher's summaries than from references?

    python run.py --config experiments/summarize.py          # mini: SciTLDR, from scratch, CPU
    python run.py --config experiments/summarize.py:qwen     # TL;DR, Qwen 1.5; accelerators
    python run.py --config experiments/summarize.py:smoke    # about a minute, a word-reversal task
    python run.py --config experiments/summarize.py --config.stages.decode.beam.width=8

mini summarises abstracts of papers in one sentence; its Transformers are those of seq_kd. qwen
distils Qwen1.5-MoE-A2.7B (14.3 billion parameters, mixture of experts) into Qwen1.5-1.8B, both
fine-tuned on Reddit posts: before, after the references alone, after Word-KD, and after Seq-KD.

mini was never run whole: its sizes and rates are a first guess, and no result is claimed; 1,992
abstracts are too few to learn English from. qwen reads its models and posts from the hub and was
never run.

Original: efficient distillation of language models (COMS 6998), TL;DR: teacher of 13B and student
of 1.5B, before and after; BLEU there is between 0 and 1, here between 0 and 100.
"""

from configs import data, models
from configs.sequence import LABELS, Size, arms
from jaxkd.core.names import did_you_mean
from jaxkd.decode.beam import Beam
from jaxkd.distil.terms import HardLabels, SoftTargets
from jaxkd.runs.experiment import Comparison, Curve, Experiment, Reference, Report
from jaxkd.stages.choose import Choose
from jaxkd.stages.decode import Decode
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.generate import Generate
from jaxkd.stages.load import Load
from jaxkd.stages.train import Train
from jaxkd.train.optimiser import AdamW

SIZES = {
    "mini": Size(teacher=1500, student=1000, more=300, batch=32, room=64, evaluate_every=250),
    "qwen": Size(teacher=2000, student=2000, batch=64, width=4, room=128, evaluate_every=500),
    "smoke": Size(
        teacher=10, student=5, more=5, batch=16, width=2, room=16, evaluate_every=5,
        evaluate_rows=64, log_every=5,
    ),
}  # fmt: skip
RATE = 1e-3

QWEN = {"teacher": "Qwen/Qwen1.5-MoE-A2.7B", "student": "Qwen/Qwen1.5-1.8B"}
QWEN_RATE = 1e-5
QWEN_LABELS = {
    "teacher": "Qwen1.5-MoE-A2.7B, references",
    "before": "Qwen1.5-1.8B, before",
    "alone": "Qwen1.5-1.8B, references",
    "word": "Qwen1.5-1.8B, Word-KD",
    "seq": "Qwen1.5-1.8B, Seq-KD",
}

# BLEU, ROUGE-1, -2 and -L of the original, on TL;DR.
ORIGINAL = {
    "teacher": (10.5, 0.355, 0.187, 0.264),
    "before": (1.0, 0.331, 0.172, 0.243),
    "after": (13.9, 0.339, 0.204, 0.268),
}
METRICS = ("bleu", "rouge1", "rouge2", "rougeL")


def get_config(variant: str = "mini") -> Experiment:
    """The experiment at one size, one of SIZES."""
    if variant not in SIZES:
        raise ValueError(f"no variant {variant!r} of summarize. {did_you_mean(variant, SIZES)}")
    size, qwen = SIZES[variant], variant == "qwen"
    if qwen:
        stages, labels = _qwen(size), dict(QWEN_LABELS)
    else:
        shapes = (
            models.seq2seq_model("transformer", variant, role) for role in ("teacher", "student")
        )
        stages = arms("transformer", *shapes, size, RATE)
        labels = {f"transformer_{name}": label for name, label in LABELS.items()}
    evaluated = tuple(labels)
    stages["evaluate"] = Evaluate(models=evaluated, splits=("test",), batch_size=32, chunk=256)
    stages["decode"] = Decode(
        models=evaluated,
        metrics=("bleu", "rouge"),
        beam=Beam(width=size.width, max_tokens=size.room),
        batch_size=32,
    )
    return Experiment(
        title="Summaries: a teacher's against a person's",
        data=data.qwen_tldr() if qwen else data.scitldr(embedded=variant == "smoke"),
        stages=stages,
        report=_report(labels, "" if qwen else "transformer_"),
    )


def _qwen(size: Size) -> dict[str, object]:
    """Both pretrained and fine-tuned; the student by references, by each token, by summaries."""
    training = dict(
        batch_size=size.batch, save_every=size.evaluate_every, evaluate_every=size.evaluate_every,
        evaluate_rows=size.evaluate_rows, chunk=256, parallel="sharded",
    )  # fmt: skip

    def steps(count: int) -> dict[str, object]:
        return training | dict(steps=count, optimiser=AdamW(learning_rate=QWEN_RATE))

    beam = Beam(width=size.width, n_best=size.width, max_tokens=size.room)
    terms = {"soft_targets": SoftTargets(weight=0.5), "cross_entropy": HardLabels(weight=0.5)}
    return {
        "teacher_init": Load(name=QWEN["teacher"], compute="bfloat16"),
        "teacher": Train(source="teacher_init", **steps(size.teacher)),
        "generated": Generate(teacher="teacher", beam=beam),
        "best": Choose(source="generated", how="best"),
        "before": Load(name=QWEN["student"], compute="bfloat16"),
        "alone": Train(source="before", **steps(size.student)),
        "word": Train(
            source="before", teacher="teacher", terms=terms, teacher_dtype="bfloat16",
            **steps(size.student),
        ),
        "seq": Train(source="before", targets="best", **steps(size.student)),
    }  # fmt: skip


def _report(labels: dict[str, str], prefix: str) -> Report:
    of = {"teacher": "teacher", "after": "seq"} | ({} if prefix else {"before": "before"})
    students = tuple(name for name in labels if name != f"{prefix}teacher")
    trained = tuple(name for name in students if name != "before")
    title = "Students: validation loss over steps"
    return Report(
        labels=labels,
        curves=(Curve(title, trained, "validation", unigram=True),),
        comparisons=tuple(
            Comparison(
                f"{labels[prefix + name]} against references ({metric})",
                f"{prefix}{name}", f"{prefix}alone", "test", f"{metric}_beam",
            )
            for name in ("word", "seq")
            for metric in ("rouge1", "rougeL")
        ),
        references=tuple(
            Reference(f"{metric} of the {name}", value, f"{prefix}{of[name]}", "test",
                      f"{metric}_beam")
            for name, values in ORIGINAL.items()
            if name in of
            for metric, value in zip(METRICS, values, strict=True)
        ),
        reference_source="Efficient knowledge distillation of language models, COMS 6998: TL;DR",
        split="test",
    )  # fmt: skip
