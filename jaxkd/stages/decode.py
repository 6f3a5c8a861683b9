"""Let models write, greedily and with a beam, and compare with the references."""

import dataclasses
import statistics
import time
from typing import Any, ClassVar

import jax
import numpy as np

from jaxkd.core.names import did_you_mean
from jaxkd.data.rows.pairs import PairRows
from jaxkd.decode.beam import Beam
from jaxkd.decode.rows import decode_rows, texts_of
from jaxkd.metrics import text as metrics
from jaxkd.runs.experiment import Workspace
from jaxkd.stages.generate import check_pairs, check_rows, writer
from jaxkd.stages.models import load_model

METRICS = {
    "bleu": lambda texts, told: {"bleu": metrics.bleu(texts, told)},
    "chrf": lambda texts, told: {"chrf": metrics.chrf(texts, told)},
    "rouge": metrics.rouge,
    "exact": lambda texts, told: {"exact": metrics.exact_match(texts, told)},
    "steps": lambda texts, told: {"steps": metrics.step_accuracy(texts, told)},
    "actions": lambda texts, told: {"actions": metrics.action_accuracy(texts, told)},
    "cer": lambda texts, told: {"cer": metrics.error_rate(texts, told)},
    "answer": lambda texts, told: {"answer": metrics.answer_match(texts, told)},
}


@dataclasses.dataclass
class Decode:
    """BLEU and the like of whole splits; the texts are kept in the stage's folder."""

    models: tuple[str, ...]  # stages
    splits: tuple[str, ...] = ("test",)  # train, validation, test
    metrics: tuple[str, ...] = ("bleu",)  # of METRICS
    beam: Beam = dataclasses.field(default_factory=lambda: Beam(width=5))
    greedy: bool = True  # also with a beam of one
    batch_size: int = 64
    rows: int = 0  # only so many of each split; 0: all
    # So many sources are also read one at a time, on one device, and the median time is told.
    timed: int = 0

    reads_text: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return self.models

    def check(self) -> None:
        self.beam.check()
        for name in self.metrics:
            if name not in METRICS:
                raise ValueError(f"metrics: {name!r}. {did_you_mean(name, METRICS)}")
        unknown = set(self.splits) - {"train", "validation", "test"}
        if unknown or not self.models or self.batch_size < 1 or self.rows < 0 or self.timed < 0:
            raise ValueError(
                f"splits={self.splits}, models={self.models}, batch_size={self.batch_size}, rows="
                f"{self.rows}, timed={self.timed}: splits are among train, validation, test; at "
                "least one model; at least one row at a time; none or some of them timed."
            )

    def check_among(self, earlier: dict[str, Any], data: Any) -> None:
        check_pairs(data)
        if not data.ctc:
            check_rows(self.batch_size)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        ways = {"beam": self.beam}
        if self.greedy:
            ways = {"greedy": dataclasses.replace(self.beam, width=1, n_best=1)} | ways
        found: dict[str, Any] = {}
        workspace.display.start(workspace.name, len(self.models) * len(self.splits) * len(ways))
        done = 0
        for name in self.models:
            if workspace.stopping():
                raise KeyboardInterrupt(f"stopped before {name} wrote; start again")
            config, params = load_model(workspace.stage_folder(name), workspace.display.say)
            splits: dict[str, dict[str, float]] = {split: {} for split in self.splits}
            for way, beam in ways.items():
                write, arranged = writer(config, params, workspace.rows, beam)
                alone = self.timed and writer(config, params, workspace.rows, beam, devices=1)
                for split in self.splits:
                    numbers = self._measure(workspace, name, way, split, write, arranged)
                    if alone:
                        numbers[f"latency_{way}"] = self._latency(workspace.rows, split, *alone)
                    splits[split] |= numbers
                    done += 1
                    workspace.display.step(done, numbers)
            found[name] = {"splits": splits}
        workspace.display.stop()
        return {"models": found}

    def _measure(
        self, workspace: Workspace, name: str, way: str, split: str, write: Any, params: Any
    ) -> dict[str, float]:
        rows = workspace.rows
        part = rows.splits[split][: self.rows or None]
        made = decode_rows(
            write,
            params,
            lambda chosen: rows.sources(part[chosen]),
            rows.lengths(part)[:, 0],
            batch_size=self.batch_size,
        )
        texts = [best for best, *_ in texts_of(made, rows.tokenizer.decode)]
        file = workspace.folder / f"{name}.{split}.{way}.txt"
        file.write_text("".join(" ".join(text.split()) + "\n" for text in texts))
        references = rows.references(split)[: len(texts)]
        numbers = {"tokens": float(made.lengths[:, 0].mean())}
        for metric in self.metrics:
            numbers |= METRICS[metric](texts, references)
        return {f"{metric}_{way}": value for metric, value in numbers.items()}

    def _latency(self, rows: PairRows, split: str, write: Any, params: Any) -> float:
        """Median milliseconds from a source's tokens to its text's, one at a time.

        Sources about as long as the split's median one are read.
        """
        part = rows.splits[split][: self.rows or None]
        lengths = rows.lengths(part)[:, 0]
        typical = np.argsort(np.abs(lengths - np.median(lengths)), kind="stable")[: self.timed]
        seconds: list[float] = []
        # Twice: the first time compiles what each needs.
        for row in (*typical, *typical):
            start = time.perf_counter()
            jax.block_until_ready(write(params, rows.sources(part[[row]])))
            seconds.append(time.perf_counter() - start)
        return 1e3 * statistics.median(seconds[len(typical) :])
