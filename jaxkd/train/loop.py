"""The training loop: steps, windows of metrics, evaluations, checkpoints; knows no model."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxkd.core.mean import Mean


@dataclasses.dataclass(frozen=True)
class Plan:
    """The steps at which things happen; all in optimiser steps."""

    steps: int
    log_every: int
    save_every: int
    evaluate_every: int = 0  # 0: only after the last step
    patience: int = 0  # evaluations without a better loss after which it stops; 0: never


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the loop calls; each is given the number of finished steps first."""

    log: Callable[[int, str, Mapping[str, float]], None]
    # step, state, {"validation_losses"}: what resuming needs besides the state
    save: Callable[[int, Any, dict[str, Any]], None]
    evaluate: Callable[[int, Any], Mapping[str, float]]  # its "loss" decides about patience
    improved: Callable[[int, Any], None] = lambda step, state: None
    stopping: Callable[[], bool] = lambda: False  # True: save and raise KeyboardInterrupt
    needed: Callable[[Any], float] = lambda batch: 0.0  # FLOPs of a step on that batch (flops.py)
    peak: float = math.nan  # FLOP/s of the devices
    check: Callable[[Any], None] = lambda batch: None  # raises for a batch that cannot be learned


class NotFinite(FloatingPointError):
    """A loss became nan or infinite."""


def run(
    step: Callable[[Any, Any, Any], tuple[Any, dict[str, Mean]]],
    state: Any,
    teacher: Any,
    feed: Any,
    plan: Plan,
    hooks: Hooks,
    *,
    done: int = 0,
    losses: list[float] | None = None,
) -> Any:
    """Steps `done` .. `plan.steps`, fewer if patience runs out; returns the last state.

    Args:
      step: (state, teacher, batch) -> (state, metrics); compiled.
      feed: has `start(step)`, an iterator over the batches from that step on.
      losses: validation losses of a run that is being resumed, from its checkpoint.
    Raises:
      NotFinite: names the first step whose loss is not finite; nothing after the last good
        checkpoint was saved.
    """
    losses = list(losses or [])
    batches = feed.start(done)
    window = _Window(done, hooks.peak)
    while done < plan.steps and not _exhausted(losses, plan.patience):
        batch = next(batches)
        hooks.check(batch)
        state, metrics = step(state, teacher, batch)
        # The window before this step is read now, while the device works on this one.
        if done % plan.log_every == 0:
            window.emit(hooks.log)
        window.add(metrics, int(np.sum(batch.mask)), hooks.needed(batch))
        done += 1
        evaluating = done == plan.steps or (plan.evaluate_every and done % plan.evaluate_every == 0)
        stopping = hooks.stopping()
        if evaluating or stopping or done % plan.save_every == 0:
            window.emit(hooks.log)
        if evaluating:
            values = hooks.evaluate(done, state)
            hooks.log(done, "validation", values)
            losses.append(float(values["loss"]))
            if losses[-1] <= min(losses):
                hooks.improved(done, state)
            window.resume()
        if evaluating or stopping or done % plan.save_every == 0:
            hooks.save(done, state, {"validation_losses": list(losses)})
            window.resume()
        if stopping:
            raise KeyboardInterrupt(f"stopped after step {done}; start again to go on from there")
    return state


def _exhausted(losses: list[float], patience: int) -> bool:
    return bool(patience) and len(losses) - int(np.argmin(losses or [0])) > patience


class _Window:
    """Metrics of the steps since the last line of the log, still on the device."""

    def __init__(self, done: int, peak: float):
        self._done, self._peak, self._pending = done, peak, []
        self._tokens, self._flops = 0, 0.0
        self._since = time.perf_counter()

    def add(self, metrics: dict[str, Mean], tokens: int, flops: float) -> None:
        self._pending.append(metrics)
        self._tokens += tokens
        self._flops += flops

    def resume(self) -> None:
        """Start the clock again, so that the speed is that of training alone."""
        self._since = time.perf_counter()

    def emit(self, log: Callable[[int, str, Mapping[str, float]], None]) -> None:
        if not self._pending:
            return
        rows = jax.device_get(self._pending)
        for i, row in enumerate(rows, self._done + 1):
            values = {name: float(mean.compute()) for name, mean in row.items()}
            if not all(map(math.isfinite, values.values())):
                numbers = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
                raise NotFinite(f"step {i} is not finite: {numbers}.")
        self._done += len(rows)
        # float64: in float32 counts stop being exact at 2^24.
        merged = {name: sum((_exact(r[name]) for r in rows), Mean(0.0, 0.0)) for name in rows[0]}
        seconds = time.perf_counter() - self._since
        speed = {"tokens_per_second": self._tokens / seconds, "step_seconds": seconds / len(rows)}
        if self._flops:
            speed["teraflops_per_second"] = self._flops / seconds / 1e12
            if math.isfinite(self._peak):
                speed["mfu"] = self._flops / seconds / self._peak
        log(self._done, "train", {k: _quotient(m) for k, m in merged.items()} | speed)
        self._pending, self._tokens, self._flops = [], 0, 0.0
        self._since = time.perf_counter()


def _exact(mean: Mean) -> Mean:
    return Mean(np.float64(mean.total), np.float64(mean.count))


def _quotient(mean: Mean) -> float:
    """`mean.compute()` on the host: JAX would make float32 of it."""
    return float(mean.total / max(mean.count, 1))
