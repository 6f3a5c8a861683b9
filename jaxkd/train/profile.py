"""A trace of a few steps, by JAX's profiler, for TensorBoard's or Perfetto's viewer."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax


class Profiled:
    """The step, traced into `folder` for `count` calls after the first `after`, which compile."""

    def __init__(self, step: Callable, folder: pathlib.Path, *, after: int = 5, count: int = 5):
        self._step, self._folder, self._after, self._until = step, folder, after, after + count
        self._calls, self._tracing = 0, False

    def __call__(self, *arguments: Any) -> Any:
        if self._calls == self._after:
            jax.block_until_ready(arguments)  # what is still running is not to be traced
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._tracing = True
        with jax.profiler.StepTraceAnnotation("step", step_num=self._calls):
            made = self._step(*arguments)
        self._calls += 1
        if self._calls == self._until:
            jax.block_until_ready(made)
            self.close()
        return made

    def close(self) -> None:
        """Write what was traced, also of a run that ended before its time."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
