"""Milliseconds of models with exits; functions are timed in turns: a busy moment meets them all."""

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
) -> dict[str, Float[np.ndarray, " rounds"]]:
    """Seconds that each function takes for all batches, in each round.

    The round before the first compiles, and is not counted. Within a round the functions take
    turns batch by batch, in an order that turns as well.
    """
    names = list(functions)
    seconds = {name: np.zeros(rounds) for name in names}
    for number in range(-1, rounds):
        for i, batch in enumerate(batches):
            first = (i + number) % len(names)
            for name in names[first:] + names[:first]:
                start = time.perf_counter()
                functions[name](batch)
                if number >= 0:
                    seconds[name][number] += time.perf_counter() - start
    return seconds


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
    functions = {
        str(i): _with_params(run.with_rule(AtExit(i)), params) for i in range(run.number_of_exits)
    }
    seconds = interleaved(functions, batches, rounds)
    rows = sum(int(np.asarray(batch.mask).any(1).sum()) for batch in batches)
    medians = [float(np.median(each)) for each in seconds.values()]
    return np.maximum.accumulate(np.array(medians)) * 1000 / rows


def _with_params(run: EarlyExit, params: Params) -> TimedFunction:
    return lambda batch: run(params, batch)
