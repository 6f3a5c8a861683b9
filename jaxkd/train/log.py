"""metrics.jsonl: one line a window of steps or an evaluation, true also after a resumed run."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any


@dataclasses.dataclass
class MetricLog:
    """Append-only lines {"step": ..., "split": ..., metric: value}; TensorBoard on request.

    The lines are for people and reports; nothing is decided by them.
    """

    file: pathlib.Path
    tensorboard: pathlib.Path | None = None
    silent: bool = False  # another process writes
    warn: Callable[[str], Any] = print  # called with a sentence if lines are damaged

    def __post_init__(self) -> None:
        self._writer = None

    def rewind(self, step: int) -> None:
        """Drop lines after `step`, which will be run again, and lines that cannot be read."""
        if self.silent:
            return
        lines = self._lines()
        damaged = [
            number for number, row in lines[:-1] if row is None
        ]  # the last: cut off by a kill
        if damaged:
            self.warn(
                f"{self.file}: {len(damaged)} damaged lines are dropped (line {damaged[0]}"
                f"{' and others' if len(damaged) > 1 else ''}); curves lack them, nothing else."
            )
        kept = [json.dumps(row) for _, row in lines if row is not None and row["step"] <= step]
        unfinished = self.file.with_suffix(".tmp")
        unfinished.write_text("".join(f"{line}\n" for line in kept))
        os.replace(unfinished, self.file)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The lines that can be read."""
        return (row for _, row in self._lines() if row is not None)

    def _lines(self) -> list[tuple[int, dict[str, Any] | None]]:
        """Each line's number and content; None for one that is damaged."""
        if not self.file.exists():
            return []
        text = self.file.read_bytes().decode(errors="replace")
        return [(number, _parsed(line)) for number, line in enumerate(text.splitlines(), 1)]

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        if self.silent:
            return
        with open(self.file, "a") as stream:
            stream.write(json.dumps({"step": step, "split": split, **metrics}) + "\n")
        if self.tensorboard is not None:
            if self._writer is None:
                try:
                    from tensorboardX import SummaryWriter
                except ModuleNotFoundError as error:
                    raise ModuleNotFoundError(
                        "--tensorboard needs tensorboardX; in the folder of jaxkd: pip install "
                        "-c constraints.txt -e '.[tensorboard]'"
                    ) from error
                self._writer = SummaryWriter(str(self.tensorboard), purge_step=step)
            for name, value in metrics.items():
                self._writer.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    well_formed = (
        isinstance(row, dict)
        and isinstance(row.get("step"), int)
        and isinstance(row.get("split"), str)
    )
    return row if well_formed else None


def last_of_splits(file: pathlib.Path) -> list[dict[str, Any]]:
    """The last line of each split in a metrics.jsonl; none where the file is not there."""
    return list({row["split"]: row for row in MetricLog(file, silent=True).rows()}.values())
