"""Translation: does a small model learn more from its teacher's sentences than from a person's?

    python run.py --config experiments/seq_kd.py          # mini: Transformers, an hour on one core
    python run.py --config experiments/seq_kd.py:lstm     # the same with LSTMs, 45 minutes
    python run.py --config experiments/seq_kd.py:smoke    # about a minute, a word-reversal task
    python run.py --config experiments/seq_kd.py:paper    # both kinds, 3 seeds
    python run.py --config experiments/seq_kd.py --config.stages.transformer_generated.beam.width=8

A teacher learns English to German on Multi30k and writes, with a beam, a translation of every
training sentence. Students of about a seventh of its size (a quarter for LSTMs) start from the same
random weights and learn: the references alone; the teacher's distribution at every token of them
(Word-KD); its best translations (Seq-KD); then its hypotheses closest to the references
(Seq-Inter); and Word-KD on both. Each then translates the test split, greedily and with a beam of
five.

Original: Kim and Rush (2016), arXiv:1606.07947, LSTMs on WMT 2014 English-German: another and much
larger data set, so that its rows can be compared with each other, not with ours.
"""

import dataclasses

from configs import data, models
from configs.sequence import LABELS, Size, arms
from jaxkd.core.names import did_you_mean
from jaxkd.decode.beam import Beam
from jaxkd.runs.experiment import Comparison, Curve, Experiment, Reference, Report
from jaxkd.stages.decode import Decode
from jaxkd.stages.evaluate import Evaluate


@dataclasses.dataclass
class Variant:
    """What a variant is made of."""

    kinds: tuple[str, ...] = ("transformer",)
    model: str = "mini"
    size: Size = dataclasses.field(default_factory=Size)
    embedded: bool = False
    seeds: tuple[int, ...] = (0,)


VARIANTS = {
    "mini": Variant(),
    "lstm": Variant(kinds=("lstm",)),
    "paper": Variant(
        kinds=("transformer", "lstm"),
        size=Size(teacher=9000, student=9000, more=1800),
        seeds=(0, 1, 2),
    ),
    "smoke": Variant(
        model="smoke",
        size=Size(
            teacher=20, student=10, more=5, batch=16, width=2, room=16, evaluate_every=10,
            evaluate_rows=64, log_every=5,
        ),
        embedded=True,
    ),
}  # fmt: skip
RATES = {"transformer": 2e-3, "lstm": 3e-3}

# Greedy and beam BLEU of Kim and Rush, English to German: teacher 4 x 1000, students 2 x 500.
ORIGINAL = {
    "teacher": (17.7, 19.5),
    "alone": (14.7, 17.6),
    "word": (15.4, 17.7),
    "seq": (18.9, 19.0),
    "all": (18.8, 19.2),
}


def get_config(variant: str = "mini") -> Experiment:
    """The experiment at one size, one of VARIANTS."""
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r} of seq_kd. {did_you_mean(variant, VARIANTS)}")
    chosen = VARIANTS[variant]
    stages: dict[str, object] = {}
    for kind in chosen.kinds:
        teacher, student = (
            models.seq2seq_model(kind, chosen.model, role) for role in ("teacher", "student")
        )
        stages |= arms(kind, teacher, student, chosen.size, RATES[kind])
    evaluated = tuple(f"{kind}_{name}" for kind in chosen.kinds for name in LABELS)
    beam = Beam(width=chosen.size.width, max_tokens=chosen.size.room)
    stages["evaluate"] = Evaluate(models=evaluated, splits=("test",), batch_size=64)
    stages["decode"] = Decode(models=evaluated, splits=("test",), beam=beam)
    return Experiment(
        title="Sequence-level distillation: a teacher's translations against a person's",
        data=data.multi30k(embedded=chosen.embedded),
        stages=stages,
        seeds=chosen.seeds,
        report=_report(chosen.kinds),
    )


def _report(kinds: tuple[str, ...]) -> Report:
    titles = {"transformer": "Transformer", "lstm": "LSTM"}
    labels = {
        f"{kind}_{name}": f"{titles[kind]} {label}"
        for kind in kinds
        for name, label in LABELS.items()
    }
    curves, comparisons, references = [], [], []
    for kind in kinds:
        students = tuple(f"{kind}_{name}" for name in ("alone", "word", "seq", "both"))
        title = f"{titles[kind]} students: validation loss over steps"
        curves.append(Curve(title, students, "validation", unigram=True))
        for search in ("greedy", "beam"):
            comparisons += [
                Comparison(
                    f"{titles[kind]}: {LABELS[target]} against references ({search})",
                    f"{kind}_{target}", f"{kind}_alone", "test", f"bleu_{search}",
                )
                for target in ("word", "seq", "all")
            ]  # fmt: skip
        references += [
            Reference(
                f"{LABELS[name]}, {search}", value, f"{kind}_{name}", "test", f"bleu_{search}"
            )
            for name, values in ORIGINAL.items()
            for search, value in zip(("greedy", "beam"), values, strict=True)
        ]
    return Report(
        labels=labels,
        curves=tuple(curves),
        comparisons=tuple(comparisons),
        references=tuple(references),
        reference_source="Kim and Rush (2016), WMT 2014 English-German, LSTMs",
        split="test",
    )
