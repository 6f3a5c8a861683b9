"""What the person at the keyboard sees: a live line on a terminal, plain lines in the log file."""

import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from jaxkd.report import markup
from jaxkd.report.spread import number

SECONDS_BETWEEN_LINES = 15  # where there is no terminal
WIDTH = 120  # columns of a table, where there is no terminal
FIRST = 16  # of them, what names a row has at least, where there is room


class Display:
    """Shows stages and steps. On a terminal a live bar; elsewhere a line now and then."""

    def __init__(self, log: pathlib.Path | None = None, console: Console | None = None):
        self.console = console or Console(highlight=False, soft_wrap=True)
        if console is None and not self.console.is_terminal:
            self.console.width = max(self.console.width, WIDTH)
        self._log: TextIO | None = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._log = open(log, "a")
        self._bar: Progress | None = None
        self._last_line = 0.0
        self._stage = ""

    def say(self, text: str) -> None:
        """A line for the terminal and the log file."""
        self.console.print(text, markup=False)
        self._write(text)

    def table(self, table: markup.Table) -> None:
        """A table that fits the terminal; markdown in the log file."""
        columns = Table(box=box.SIMPLE_HEAD, caption=table.caption, caption_justify="left")
        cells = [[name, *(row[i] for row in table.rows)] for i, name in enumerate(table.header)]
        numbers = [bool(table.rows) and table.numeric(i) for i in range(len(table.header))]
        wide = [max(map(len, cells[i])) if numeric else FIRST for i, numeric in enumerate(numbers)]
        roomy = sum(wide) + 3 * len(wide) <= self.console.width
        for i, (name, numeric) in enumerate(zip(table.header, numbers, strict=True)):
            columns.add_column(
                name,
                justify="right" if numeric else "left",
                no_wrap=numeric and roomy,
                overflow="fold",
                min_width=FIRST if roomy and not i else None,
            )
        for row in table.rows:
            columns.add_row(*row)
        self.console.print(columns, markup=False, soft_wrap=False)
        self._write(markup.markdown(table).rstrip())

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """Begin the bar of a stage of `total` steps, of which `done` are behind us."""
        self.stop()
        self._stage, self._total, self._done = stage, total, done
        self._values: dict[str, str] = {}  # the latest numbers of each split
        self._first: tuple[int, float] | None = None  # the first step that was shown, and when
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[status]}"),
                console=self.console,
                transient=True,
            )
            self._task = self._bar.add_task(stage, total=total, completed=done, status="compiling")
            self._bar.start()

    def step(
        self, done: int, values: Mapping[str, float], *, split: str = "", about: str = ""
    ) -> None:
        """`done` steps are behind us, and these are the latest numbers.

        Args:
          split: "train": the loss is an objective; another one: the loss is that split's. The
            latest numbers of both stay on the line.
          about: what was measured, as a model and a split.
        """
        now = time.monotonic()
        if self._first is None:
            self._first = (done, now)  # before it everything was compiled
        if values:
            self._values[split] = numbers_line(values, split)
        status = "  ".join(filter(None, [about, *self._values.values()]))
        left = self.seconds_left(done, now)
        if left is not None:
            status += f"  {duration(left)} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, status=status)
        line = f"{self._stage}  step {done}/{self._total}  {status}"
        self._write(line)
        if self._bar is None and now - self._last_line > SECONDS_BETWEEN_LINES:
            self.console.print(line, markup=False)
            self._last_line = now

    def seconds_left(self, done: int, now: float) -> float | None:
        """By the speed since the first step that was shown; None before a second one.

        The time before that, in which programs are compiled, is not counted.
        """
        if self._first is None or done <= self._first[0]:
            return None
        steps, seconds = done - self._first[0], now - self._first[1]
        return (self._total - done) * seconds / steps

    def finished(
        self,
        title: str,
        seconds: float,
        metrics: Mapping[str, Any],
        last: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """A stage that has ended: how long it took, and its main numbers.

        Args:
          metrics: what the stage returned.
          last: the last lines of its metrics.jsonl, where it trained.
        """
        parts = [f"{title}: {duration(seconds)}"]
        for entry in last:
            parts.append(numbers_line(entry, str(entry.get("split", ""))))
        self.say("  ".join(filter(None, parts)))
        described = metrics.get("metrics") or {}
        for model, measured in (metrics.get("models") or {}).items():
            for split, numbers in (measured.get("splits") or {}).items():
                line = described_line(numbers, described)
                if line:
                    self.say(f"    {model}, {split}: {line}")

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


def numbers_line(values: Mapping[str, Any], split: str = "") -> str:
    """The few numbers that fit a line.

    >>> numbers_line({"loss": 12.8, "tokens_per_second": 9107.0}, "train")
    'objective 12.80  9,107 tokens/s'
    >>> numbers_line({"loss": 5.97, "accuracy": 0.165}, "validation")
    'validation loss 5.970  accuracy 16.5%'
    """
    parts = []
    if "loss" in values:
        name = "objective" if split == "train" else f"{split} loss".strip()
        parts.append(f"{name} {number(values['loss'])}")
    if "tokens_per_second" in values:
        parts.append(f"{values['tokens_per_second']:,.0f} tokens/s")
    if "mfu" in values:
        parts.append(f"MFU {100 * values['mfu']:.0f}%")
    if "accuracy" in values:
        parts.append(f"accuracy {100 * values['accuracy']:.1f}%")
    if not parts:  # a decoded text's scores
        first = [(k, v) for k, v in values.items() if not k.startswith("latency")][:3]
        parts = [f"{name.replace('_', ' ')} {number(value)}" for name, value in first]
    return "  ".join(parts)


def described_line(
    numbers: Mapping[str, float], described: Mapping[str, Any], most: int = 4
) -> str:
    """The first numbers that have a column, with title and unit.

    >>> described_line({"mcc": 0.5, "accuracy": 0.9},
    ...                {"mcc": {"title": "MCC"}, "accuracy": {"title": "accuracy", "unit": "%"}})
    'MCC 0.500, accuracy 90.00%'
    """
    parts = []
    for name, about in described.items():
        if name in numbers and about.get("columns", "all") == "all" and len(parts) < most:
            unit = about.get("unit", "")
            value = numbers[name] * (100 if unit == "%" else 1)
            space = " " if unit and unit != "%" else ""
            parts.append(f"{about['title']} {number(value)}{space}{unit}")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(7.4), duration(83.0), duration(7260.0)
    ('7 s', '1 min 23 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
