"""Matrices of hidden-state terms by least squares, before the first step."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from jaxkd.core.batch import Batch
from jaxkd.core.outputs import Outputs
from jaxkd.distil.objective import Terms

BATCHES = 8  # of the training split


def with_solved_matrices(
    terms: Terms,
    own: Mapping[str, Any],
    outputs: Callable[[Any, Batch], tuple[Outputs, Outputs]],
    params: Any,
    batches: Iterable[Batch],
) -> dict[str, Any]:
    """The terms' parameters, the matrices of those with `solve` fitted to the batches.

    Args:
      own: parameters of the terms (`objective.init`).
      outputs: the student's and the teacher's outputs for these `params` and a batch.
    """
    chosen = {name: terms[name] for name in own if getattr(terms[name], "solve", False)}
    if not chosen:
        return dict(own)

    @jax.jit
    def sums(params: Any, batch: Batch) -> dict[str, Any]:
        student, teacher = outputs(params, batch)
        return {n: term.normal_equations(student, teacher, batch) for n, term in chosen.items()}

    # One program: sums one by one would be a compilation for every shape.
    add = jax.jit(lambda parts: jax.tree.map(lambda *each: sum(each), *parts))
    total = add([sums(params, batch) for batch in batches])
    return dict(own) | {name: term.solved(total[name]) for name, term in chosen.items()}
