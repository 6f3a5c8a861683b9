"""Time and energy of models with exits. Functions take turns: other load affects all alike."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxkd.core.batch import Batch
from jaxkd.exits.energy import Counters
from jaxkd.exits.rules import AtExit
from jaxkd.exits.run import EarlyExit
from jaxkd.models.model import Model, Params, forward

TimedFunction = Callable[[Batch], Any]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a function took for the same batches, round by round."""

    seconds: Float[np.ndarray, "rounds batches"]
    joules: Float[np.ndarray, " rounds"] | None  # of all batches; None without counters


def interleaved(
    functions: Mapping[str, TimedFunction],
    batches: Sequence[Batch],
    rounds: int,
    counters: Counters | None = None,
) -> dict[str, Measured]:
    """What each function takes for each batch, in each round.

    The round before the first compiles, and is not counted. Within a round the functions take
    turns, in an order that turns as well. Each goes over all batches at its turn, as in service:
    after another model every batch would find the processor's caches empty.
    """
    names = list(functions)
    counted = counters is not None and not counters.missing
    results = {
        name: Measured(np.zeros((rounds, len(batches))), np.zeros(rounds) if counted else None)
        for name in names
    }
    for number in range(-1, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            before = counters.read() if counted else None
            for i, batch in enumerate(batches):
                start = time.perf_counter()
                functions[name](batch)
                if number >= 0:
                    results[name].seconds[number, i] = time.perf_counter() - start
            if counted and number >= 0:
                results[name].joules[number] = counters.joules_since(before)
    return results


def milliseconds_a_row(measured: Measured, batches: Sequence[Batch]) -> float:
    """The median round's mean over rows; rows that only fill a batch up do not count."""
    return 1000 * float(np.median(measured.seconds.sum(1))) / _rows(batches)


def millijoules_a_row(measured: Measured, batches: Sequence[Batch]) -> float | None:
    """The same of the energy; None where it was not measured."""
    if measured.joules is None:
        return None
    return 1000 * float(np.median(measured.joules)) / _rows(batches)


def _rows(batches: Sequence[Batch]) -> int:
    return sum(int(np.asarray(batch.mask).any(1).sum()) for batch in batches)


def whole(model: Model, params: Params) -> TimedFunction:
    """The model without early exit: its head's logits, on the host."""
    logits_of = jax.jit(lambda params, batch: forward(model, params, batch).logits)
    return lambda batch: np.asarray(logits_of(params, batch))


def exit_milliseconds(
    run: EarlyExit, params: Params, batches: Sequence[Batch], rounds: int
) -> Float[np.ndarray, " N"]:
    """Milliseconds a row until each exit has answered; the median round, never less than before.

    Embedding, blocks, and the heads of all exits up to this one are in it, as early exit runs them.
    """
    measured = interleaved(_until_each_exit(run, params), batches, rounds)
    return np.maximum.accumulate(
        np.array([milliseconds_a_row(each, batches) for each in measured.values()])
    )


def slowest_milliseconds(
    run: EarlyExit, params: Params, batch: Batch, rounds: int
) -> Float[np.ndarray, " N"]:
    """Milliseconds until each exit has answered this batch, in the slowest round.

    Of a batch as long as any can be, that is what a deadline has to allow for.
    """
    measured = interleaved(_until_each_exit(run, params), [batch], rounds)
    slowest = [each.seconds.max() for each in measured.values()]
    return np.maximum.accumulate(1000 * np.array(slowest))


def _until_each_exit(run: EarlyExit, params: Params) -> dict[str, TimedFunction]:
    def until(i: int) -> TimedFunction:
        stopping = run.with_rule(AtExit(i))
        return lambda batch: stopping(params, batch)

    return {str(i): until(i) for i in range(run.number_of_exits)}
