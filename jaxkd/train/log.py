"""metrics.jsonl: one line a window of steps or an evaluation, true also after a resumed run."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any


@dataclasses.dataclass
class MetricLog:
    """Append-only lines {"step": ..., "split": ..., metric: value}; TensorBoard on request."""

    file: pathlib.Path
    tensorboard: pathlib.Path | None = None
    silent: bool = False  # another process writes

    def __post_init__(self) -> None:
        self._writer = None

    def rewind(self, step: int) -> None:
        """Forget what lies after `step` (it will be run again), and a line cut off by a kill."""
        if self.silent:
            return
        kept = [json.dumps(row) for row in self.rows() if row["step"] <= step]
        unfinished = self.file.with_suffix(".tmp")
        unfinished.write_text("".join(f"{line}\n" for line in kept))
        os.replace(unfinished, self.file)

    def rows(self) -> Iterator[dict[str, Any]]:
        if not self.file.exists():
            return
        with open(self.file) as stream:
            for line in stream:
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:  # the last line of a killed run
                    return

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
                        "--tensorboard needs tensorboardX: pip install 'jaxkd[tensorboard]'"
                    ) from error
                self._writer = SummaryWriter(str(self.tensorboard), purge_step=step)
            for name, value in metrics.items():
                self._writer.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
