"""ALFRED's language: from an instruction to the robot's plan, by LSTMs and by Transformers.

    python run.py --config experiments/alfred.py          # mini: both kinds, 100 minutes, one core
    python run.py --config experiments/alfred.py:scan     # SCAN, commands to actions
    python run.py --config experiments/alfred.py:length   # SCAN, longer sequences in the test
    python run.py --config experiments/alfred.py:jump     # SCAN, a word seen alone in training
    python run.py --config experiments/alfred.py:smoke    # about a minute, a word-reversal task

The source is a goal and its steps in English; the target has the sub-goals, their objects and,
after a colon, the manipulation actions of each (navigation is left out: it depends on a scene that
the text does not describe). A sequence-to-sequence LSTM, the benchmark's baseline, is compared with
a Transformer; each teaches a student of a fifth to a tenth of its size by its distribution at every
token (Word-KD), by its own plans (Seq-KD), and by both. We report exact match, per-step accuracy
and per-action accuracy (position-wise). Latency is the median of single-plan decodes at median
source length, on the machine of the run.

The labels of ALFRED's tests are not public: valid_seen is the test here, and 5% of the training
trajectories are held out for validation.

The variants on SCAN were never run whole: their sizes and rates are a first guess.
"""

import dataclasses

from configs import data, models
from configs.sequence import LABELS, Size, arms
from jaxkd.core.names import did_you_mean
from jaxkd.data.rows.pairs import Pairs
from jaxkd.decode.beam import Beam
from jaxkd.runs.experiment import Comparison, Curve, Experiment, Report
from jaxkd.stages.decode import Decode
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.export import Export, with_bundles

KINDS = {"lstm": "LSTM", "transformer": "Transformer"}
RATES = {"transformer": 1e-3, "lstm": 2e-3}


@dataclasses.dataclass
class Variant:
    """What a variant is made of."""

    data: Pairs
    size: Size
    model: str = "mini"
    kinds: tuple[str, ...] = tuple(KINDS)
    metrics: tuple[str, ...] = ("exact",)
    timed: int = 50  # plans decoded one at a time, for the latency


_SCAN = Size(teacher=3000, student=3000, more=600, room=256, evaluate_every=500)
VARIANTS = {
    "mini": Variant(
        data.alfred(),
        Size(teacher=1200, student=1000, more=300, batch=32, room=96, evaluate_every=200),
        metrics=("exact", "steps", "actions"),
    ),
    "scan": Variant(data.scan(), _SCAN),
    "length": Variant(data.scan("length"), _SCAN),
    "jump": Variant(data.scan("jump"), _SCAN),
    "smoke": Variant(
        data.alfred(embedded=True),
        Size(
            teacher=10, student=5, more=5, batch=16, width=2, room=16, evaluate_every=5,
            evaluate_rows=64, log_every=5,
        ),
        model="smoke",
        kinds=("lstm",),
        metrics=("exact", "steps"),
        timed=3,
    ),
}  # fmt: skip


def get_config(variant: str = "mini") -> Experiment:
    """The experiment on one data set, one of VARIANTS."""
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r} of alfred. {did_you_mean(variant, VARIANTS)}")
    chosen = VARIANTS[variant]
    stages: dict[str, object] = {}
    for kind in chosen.kinds:
        shapes = (models.seq2seq_model(kind, chosen.model, role) for role in ("teacher", "student"))
        stages |= arms(kind, *shapes, chosen.size, RATES[kind])
    evaluated = tuple(f"{kind}_{name}" for kind in chosen.kinds for name in LABELS)
    stages["evaluate"] = Evaluate(models=evaluated, splits=("test",), batch_size=64)
    stages["decode"] = Decode(
        models=evaluated,
        metrics=chosen.metrics,
        timed=chosen.timed,
        beam=Beam(width=chosen.size.width, max_tokens=chosen.size.room),
    )
    for kind in chosen.kinds:  # both kinds' students of words and plans, to compare on a device
        # transformers has no LSTMs.
        skip = ("huggingface",) if kind == "lstm" else ()
        stages[f"{kind}_export"] = Export(model=f"{kind}_all", formats=with_bundles(), skip=skip)
    return Experiment(
        title="From instructions to plans: LSTMs and Transformers, teachers and students",
        data=dataclasses.replace(chosen.data),
        stages=stages,
        report=_report(chosen.kinds),
    )


def _report(kinds: tuple[str, ...]) -> Report:
    labels = {
        f"{kind}_{name}": f"{KINDS[kind]} {label}"
        for kind in kinds
        for name, label in LABELS.items()
    }
    comparisons = [
        Comparison(
            f"{KINDS[kind]}: {LABELS[target]} against references",
            f"{kind}_{target}", f"{kind}_alone", "test", "exact_greedy",
        )
        for kind in kinds
        for target in ("word", "seq", "all")
    ]  # fmt: skip
    if len(kinds) > 1:
        title = "teachers: Transformer against LSTM"
        pair = ("transformer_teacher", "lstm_teacher")
        comparisons.insert(0, Comparison(title, *pair, "test", "exact_greedy"))
    curves = [
        Curve(
            f"{KINDS[kind]}: validation loss over steps",
            tuple(f"{kind}_{name}" for name in ("teacher", "alone", "word", "seq", "both")),
            "validation",
            unigram=True,
        )
        for kind in kinds
    ]
    return Report(labels, tuple(curves), tuple(comparisons), split="test")
