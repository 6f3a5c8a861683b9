"""What the person at the keyboard sees: a live line on a terminal, plain lines in the log file."""

import pathlib
import time
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Display:
    """Tells of stages and steps. On a terminal a live bar; elsewhere a line now and then."""

    def __init__(self, log: pathlib.Path | None = None, console: Console | None = None):
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._log: TextIO | None = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._log = open(log, "a")
        self._bar: Progress | None = None
        self._told = 0.0
        self._stage = ""

    def say(self, text: str) -> None:
        """A line for the terminal and the log file."""
        self.console.print(text, markup=False)
        self._write(text)

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """Begin the bar of a stage of `total` steps, of which `done` are behind us."""
        self.stop()
        self._stage, self._total, self._first, self._began = stage, total, done, time.monotonic()
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[told]}"),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True),
                console=self.console,
                transient=True,
            )
            self._task = self._bar.add_task(stage, total=total, completed=done, told="compiling")
            self._bar.start()

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """`done` steps are behind us, and these are the latest numbers."""
        told = _told(values)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, told=told)
        ran, spent = done - self._first, time.monotonic() - self._began
        left = f"{(self._total - done) * spent / ran:.0f} s left" if ran else ""
        line = f"{self._stage}  step {done}/{self._total}  {told}  {left}"
        self._write(line)
        if self._bar is None and time.monotonic() - self._told > 15:
            self.console.print(line, markup=False)
            self._told = time.monotonic()

    def stop(self) -> None:
        """End the live bar, so that plain text can follow."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def close(self) -> None:
        self.stop()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _write(self, text: str) -> None:
        if self._log is not None:
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")
            self._log.flush()


def _told(values: Mapping[str, float]) -> str:
    """The few numbers that fit a line."""
    shown = [f"loss {values['loss']:.4f}"] if "loss" in values else []
    if "tokens_per_second" in values:
        shown.append(f"{values['tokens_per_second']:,.0f} tokens/s")
    if "mfu" in values:
        shown.append(f"MFU {100 * values['mfu']:.0f}%")
    if "accuracy" in values:
        shown.append(f"accuracy {values['accuracy']:.3f}")
    return "  ".join(shown)
