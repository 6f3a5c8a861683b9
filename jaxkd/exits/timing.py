"""Milliseconds of models with exits. Functions are timed in turns: other load affects all alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxkd.core.batch import Batch
from jaxkd.exits.rules import AtExit
from jaxkd.exits.run import EarlyExit
from jaxkd.models.model import Model, Params, forward

TimedFunction = Callable[[Batch], Any]


def interleaved(
    functions: Mapping[str, TimedFunction], batches: Sequence[Batch], rounds: int
) -> dict[str, Float[np.ndarray, "rounds batches"]]:
    """Seconds that each function takes for each batch, in each round.

    The round before the first compiles, and is not counted. Within a round the functions take
    turns, in an order that turns as well. Each goes over all batches at its turn, as in service:
    after another model every batch would find the processor's caches empty.
    """
    names = list(functions)
    seconds = {name: np.zeros((rounds, len(batches))) for name in names}
    for number in range(-1, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            for i, batch in enumerate(batches):
                start = time.perf_counter()
                functions[name](batch)
                if number >= 0:
                    seconds[name][number, i] = time.perf_counter() - start
    return seconds


def milliseconds_a_row(
    seconds: Float[np.ndarray, "rounds batches"], batches: Sequence[Batch]
) -> float:
    """The median round's mean over rows; rows that only fill a batch up do not count."""
    rows = sum(int(np.asarray(batch.mask).any(1).sum()) for batch in batches)
    return 1000 * float(np.median(seconds.sum(1))) / rows


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
    seconds = interleaved(_until_each_exit(run, params), batches, rounds)
    return np.maximum.accumulate(
        np.array([milliseconds_a_row(each, batches) for each in seconds.values()])
    )


def slowest_milliseconds(
    run: EarlyExit, params: Params, batch: Batch, rounds: int
) -> Float[np.ndarray, " N"]:
    """Milliseconds until each exit has answered this batch, in the slowest round.

    Of a batch as long as any can be, that is what a deadline has to allow for.
    """
    seconds = interleaved(_until_each_exit(run, params), [batch], rounds)
    return np.maximum.accumulate(1000 * np.array([each.max() for each in seconds.values()]))


def _until_each_exit(run: EarlyExit, params: Params) -> dict[str, TimedFunction]:
    def until(i: int) -> TimedFunction:
        stopping = run.with_rule(AtExit(i))
        return lambda batch: stopping(params, batch)

    return {str(i): until(i) for i in range(run.number_of_exits)}
