"""The objective: weighted terms, each a mean over unmasked values, reported one by one.

A term has the number of values in its mean (`count`, of the batch alone) and their sum (`total`).
Counts are known before the forward pass, so that shards and micro-batches can be divided by the
count of the whole batch.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp

from jaxkd import losses
from jaxkd.core import ranges
from jaxkd.core.batch import Batch
from jaxkd.core.outputs import Outputs
from jaxkd.core.random import stream
from jaxkd.distil.ctc_terms import CtcLabels, FrameTargets
from jaxkd.distil.schedule import Ramp, at_step, extremes
from jaxkd.distil.vocabulary_terms import HardLabels, SoftTargets


@runtime_checkable
class Term(Protocol):
    """One summand of an objective (terms.py).

    A term over a vocabulary also has `values(student's logits, teacher's logits, labels)`,
    unreduced, and can be fused with the head; a term with parameters of its own has
    `init(key, student, teacher)`. `needs_teacher` and `internals` (class variables, False if
    absent) say that it needs a teacher, and that it compares attention.
    """

    weight: float
    ramps: dict[str, Ramp]

    def check(self, name: str) -> None: ...

    def count(self, batch: Batch) -> Any: ...

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any) -> Any: ...


Terms = dict[str, Any]  # name -> Term; the name is what metrics are reported under


def check(terms: Terms) -> None:
    """Raise ValueError for terms that cannot be minimised."""
    for name, term in terms.items():
        term.check(f"terms.{name}")
        if dataclasses.is_dataclass(term):
            ranges.check(term, f"terms.{name}")
        least = extremes(term, "weight")[0]
        if least < 0:
            raise ValueError(f"terms.{name}.weight is {least}; weights are 0 or more.")
    if not any(extremes(term, "weight")[1] > 0 for term in terms.values()):
        raise ValueError("every term of the objective has weight 0: there is nothing to learn.")


def check_stored(terms: Terms, kind: str = "") -> None:
    """Raise ValueError for terms that a stored teacher cannot serve.

    Args:
      kind: of the store: states, scores, top_k, draws or hypotheses; empty: any.
    """
    if kind == "hypotheses":
        others = [name for name, term in terms.items() if not isinstance(term, CtcLabels)]
        if others:
            raise ValueError(
                f"terms {others}: stored hypotheses serve only the terms CtcHypotheses and "
                "CtcLabels."
            )
        return
    # What is applied at early exits is a term over predictions too.
    terms = {name: getattr(term, "term", term) for name, term in terms.items()}
    layered = [name for name, term in terms.items() if not hasattr(term, "values")]
    if layered:
        raise ValueError(
            f"terms {layered} look into the teacher's layers, and a store has its predictions "
            "only. Leave them out, or let the teacher run (labels='')."
        )
    if kind not in ("top_k", "draws"):
        return
    for name, term in terms.items():
        if type(term) is HardLabels:
            continue
        if type(term) is not SoftTargets or extremes(term, "temperature") != (1.0, 1.0):
            raise ValueError(
                f"terms.{name}: of a teacher stored as {kind} only SoftTargets at temperature 1 "
                "can be computed. Store its states (kind='states') for anything else."
            )


def check_ctc(terms: Terms, ctc: bool) -> None:
    """Raise ValueError for aligned terms on CTC data, and for CTC terms on aligned data.

    Labels and positions of CTC data have arrays of one shape, so that nothing else would fail.
    """
    ctc_terms = (CtcLabels, FrameTargets)
    wrong = [
        name for name, term in terms.items() if isinstance(term, HardLabels if ctc else ctc_terms)
    ]
    if wrong:
        fit = "CtcLabels, FrameTargets, CtcHypotheses and those of layers" if ctc else "others"
        raise ValueError(f"terms {wrong} do not fit data.ctc={ctc}: {fit} do.")


def at(terms: Terms, step: Any) -> Terms:
    """The terms as they are at that optimiser step."""
    return {name: at_step(term, step) for name, term in terms.items()}


def init(terms: Terms, seed: int, student: Outputs, teacher: Outputs | None) -> dict[str, Any]:
    """Parameters of the terms' own, by name; only shapes of the outputs are used."""
    return {
        name: term.init(stream(seed, f"terms/{name}"), student, teacher)
        for name, term in terms.items()
        if hasattr(term, "init")
    }


def counts(terms: Terms, batch: Batch) -> dict[str, Any]:
    """Number of values in the mean of each term, over this batch."""
    return {name: term.count(batch) for name, term in terms.items()}


def loss(
    terms: Terms,
    own: Mapping[str, Any],
    student: Outputs,
    teacher: Outputs | None,
    batch: Batch,
    counts: Mapping[str, Any],
    *,
    chunk: int = 0,
) -> tuple[Any, dict[str, Any]]:
    """sum_i weight_i total_i / count_i, the number that is differentiated, and all totals.

    Args:
      own: parameters of the terms (`init`).
      counts: of the whole batch, of which this one may be a part.
      chunk: positions whose logits exist at once (losses/fused.py); 0: all of them.
    """
    fused = {}
    if chunk and student.projection is not None:
        fused = {name: term for name, term in terms.items() if hasattr(term, "values")}
    weights = {name: share(term, counts[name]) for name, term in terms.items()}
    value, totals = 0.0, {}
    if fused:

        def values(logits: Any, teacher_logits: Any, labels: Any) -> dict[str, Any]:
            return {
                name: term.values(logits, teacher_logits, labels) for name, term in fused.items()
            }

        value, totals = losses.fused(
            values,
            {name: weights[name] for name in fused},
            student.projection,
            None if teacher is None else teacher.sparse or teacher.projection,
            batch.targets,
            batch.target_mask,
            chunk=chunk,
        )
    for name, term in terms.items():
        if name not in fused:
            totals[name] = term.total(student, teacher, batch, own.get(name, ()))
            value = value + weights[name] * totals[name]
    return value, {name: totals[name] for name in terms}


def share(term: Term, count: Any) -> Any:
    """The factor of the term's total in the loss: weight / count."""
    return term.weight / jnp.maximum(count, 1)
