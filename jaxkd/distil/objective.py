"""What is minimised: weighted terms, each a mean over what counts, reported one by one.

A term says over how many values it is a mean (`count`, of the batch alone) and what their sum is
(`total`). Counts are known before the forward pass, so that shards and micro-batches can be
divided by the count of the whole batch.
"""

import dataclasses
from typing import Any, Protocol

import jax.numpy as jnp

from jaxkd import losses
from jaxkd.core.batch import Batch
from jaxkd.core.mean import Mean
from jaxkd.core.names import did_you_mean
from jaxkd.core.outputs import Outputs


class Term(Protocol):
    """One summand of an objective."""

    weight: float

    def count(self, batch: Batch) -> Any: ...

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Any: ...


@dataclasses.dataclass
class HardLabels:
    """Cross-entropy at the target positions."""

    weight: float = 1.0

    def count(self, batch: Batch) -> Any:
        return jnp.sum(batch.target_mask, dtype=jnp.float32)

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Any:
        values = losses.hard_labels(student.logits, batch.targets)
        return Mean.of(values, batch.target_mask).total


@dataclasses.dataclass
class SoftTargets:
    """T^2 KL(teacher || student) at the target positions."""

    weight: float = 1.0
    temperature: float = 1.0

    def count(self, batch: Batch) -> Any:
        return jnp.sum(batch.target_mask, dtype=jnp.float32)

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Any:
        mine, its = losses.shared(student.logits, teacher.logits)
        values = losses.soft_targets(mine, its, temperature=self.temperature)
        return Mean.of(values, batch.target_mask).total


KINDS = {  # name -> the loss, and the fields of Divergence it takes beside the temperature
    "forward_kl": (losses.soft_targets, ()),
    "reverse_kl": (losses.reverse_kl, ()),
    "jensen_shannon": (losses.jensen_shannon, ("beta", "normalised")),
    "skewed_kl": (losses.skewed_kl, ("alpha",)),
    "skewed_reverse_kl": (losses.skewed_reverse_kl, ("alpha",)),
    "adaptive_kl": (losses.adaptive_kl, ("head",)),
    "total_variation": (losses.total_variation, ()),
    "soft_cross_entropy": (losses.soft_cross_entropy, ()),
}


@dataclasses.dataclass
class Divergence(SoftTargets):
    """Any divergence of losses/divergences.py by its name, at the target positions."""

    kind: str = "forward_kl"  # one of KINDS
    beta: float = 0.5  # jensen_shannon: weight of the teacher
    normalised: bool = False  # jensen_shannon: divided by beta (1 - beta)
    alpha: float = 0.1  # skewed_kl, skewed_reverse_kl
    head: float = 0.5  # adaptive_kl: probability of the teacher's head

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Any:
        loss, fields = KINDS[self.kind]
        options = {field: getattr(self, field) for field in fields}
        mine, its = losses.shared(student.logits, teacher.logits)
        values = loss(mine, its, temperature=self.temperature, **options)
        return Mean.of(values, batch.target_mask).total


@dataclasses.dataclass
class CosineHidden:
    """Cosine distance of the last hidden states, at every token that is not padding."""

    weight: float = 1.0

    def count(self, batch: Batch) -> Any:
        return jnp.sum(batch.last_mask, dtype=jnp.float32)

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Any:
        values = losses.cosine_distance(student.hidden[-1], teacher.hidden[-1])
        return Mean.of(values, batch.last_mask).total


Terms = dict[str, Any]  # name -> Term; the name is what metrics are reported under


def check(terms: Terms) -> None:
    """Raise ValueError for terms that cannot be minimised."""
    if not any(term.weight > 0 for term in terms.values()):
        raise ValueError("every term of the objective has weight 0: there is nothing to learn.")
    for name, term in terms.items():
        if term.weight < 0:
            raise ValueError(f"terms.{name}.weight is {term.weight}; weights are 0 or more.")
        kind = getattr(term, "kind", "forward_kl")
        if kind not in KINDS:
            raise ValueError(f"terms.{name}.kind={kind!r}. {did_you_mean(kind, KINDS)}")
        for field in KINDS[kind][1]:
            value = getattr(term, field)
            if not isinstance(value, bool) and not 0 < value < 1:
                raise ValueError(f"terms.{name}.{field} is {value}; it lies between 0 and 1.")
        if getattr(term, "temperature", 1.0) <= 0:
            raise ValueError(f"terms.{name}.temperature is {term.temperature}; it is above 0.")


def counts(terms: Terms, batch: Batch) -> dict[str, Any]:
    """How many values each term is a mean of, over this batch."""
    return {name: term.count(batch) for name, term in terms.items()}


def totals(terms: Terms, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Any]:
    """The sum of each term's values over this batch, not weighted."""
    return {name: term.total(student, teacher, batch) for name, term in terms.items()}


def weighted(terms: Terms, totals: dict[str, Any], counts: dict[str, Any]) -> Any:
    """sum_i weight_i total_i / count_i, the number that is differentiated."""
    return sum(
        term.weight * totals[name] / jnp.maximum(counts[name], 1) for name, term in terms.items()
    )
