"""Let models generate, greedily and with a beam, and compare with the references."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from jaxkd.core.names import did_you_mean
from jaxkd.data.rows.pair_rows import PairRows
from jaxkd.decode.beam import Beam
from jaxkd.decode.rows import decode_rows, texts_of
from jaxkd.metrics import text as metrics
from jaxkd.metrics.metric import description
from jaxkd.metrics.text import References, normalised
from jaxkd.runs.experiment import Workspace
from jaxkd.stages.evaluate import check_at_least, check_names, check_splits
from jaxkd.stages.generate import check_pairs, check_rows, make_writer
from jaxkd.stages.models import check_stage_model, load_model
from jaxkd.stages.per_config import PerConfig
from jaxkd.stages.plans import check_models
from jaxkd.stages.task import task_of

Normalise = Callable[[str], str] | None


@dataclasses.dataclass(frozen=True)
class TextMetric:
    """Numbers of generated texts, by name; each with its description."""

    of: Callable[[Sequence[str], References], float | dict[str, float]]
    columns: dict[str, dict[str, Any]]
    # Whether letters are compared: then references are what the tokenizer makes of them.
    by_letter: bool = False

    def __call__(
        self, texts: Sequence[str], references: References, normalise: Normalise = None
    ) -> dict[str, float]:
        if self.by_letter:
            references = normalised(references, normalise)
        numbers = self.of(texts, references)
        if not isinstance(numbers, dict):
            (name,) = self.columns
            numbers = {name: numbers}
        return numbers


@dataclasses.dataclass(frozen=True)
class _Answers(TextMetric):
    """The mark before an answer goes through the tokenizer too: `####` may become `# # # #`."""

    def __call__(
        self, texts: Sequence[str], references: References, normalise: Normalise = None
    ) -> dict[str, float]:
        mark = normalise("####").strip() if normalise else "####"
        return {"answer": self.of(texts, normalised(references, normalise), mark)}


def _one(name: str, title: str, unit: str, of: Any, higher: bool = True) -> TextMetric:
    return TextMetric(of, {name: description(title, unit, higher)}, by_letter=unit == "%")


METRICS: dict[str, TextMetric] = {
    "bleu": _one("bleu", "BLEU", "", metrics.bleu),
    "chrf": _one("chrf", "chrF", "", metrics.chrf),
    "rouge": TextMetric(
        metrics.rouge,
        {f"rouge{n}": description(f"ROUGE-{n}", "%") for n in ("1", "2", "L")},
    ),
    "exact": _one("exact", "exact match", "%", metrics.exact_match),
    "steps": _one("steps", "steps right", "%", metrics.step_accuracy),
    "actions": _one("actions", "actions right", "%", metrics.action_accuracy),
    "cer": _one("cer", "letters wrong (CER)", "%", metrics.error_rate, False),
    "answer": _Answers(metrics.answer_match, {"answer": description("answers right", "%")}),
}
TOKENS = description("tokens per text", "", None, "report")
LATENCY = description("latency of a single text", "ms", False)


@dataclasses.dataclass
class Decode:
    """BLEU and the like of whole splits; the texts are kept in the stage's folder."""

    models: tuple[str, ...]  # stages
    splits: tuple[str, ...] = ("test",)  # of the data
    metrics: tuple[str, ...] = ("bleu",)  # of METRICS
    beam: Beam = dataclasses.field(default_factory=lambda: Beam(width=5))
    greedy: bool = True  # also take the likeliest token each time
    batch_size: int = 64
    rows: int = 0  # the first n rows of each split; 0: all
    # n sources are also decoded one at a time, on one device, for the median time; 0: none.
    timed: int = 0

    reads_text: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return check_names("models", self.models)

    def check(self) -> None:
        self.beam.check()
        check_names("models", self.models)
        check_names("splits", self.splits)
        for name in check_names("metrics", self.metrics):
            if name not in METRICS:
                raise ValueError(f"metrics: {name!r}. {did_you_mean(name, METRICS)}")
        check_at_least("batch_size", self.batch_size, 1)
        check_at_least("rows", self.rows, 0)
        check_at_least("timed", self.timed, 0)

    def check_among(self, earlier: dict[str, Any], data: Any) -> None:
        check_pairs(data)
        if not data.ctc:
            check_rows(self.batch_size)

    def check_config(self, configs: dict[str, Any], rows: Any) -> None:
        """Raise ValueError for what the opened data cannot give, before any stage runs."""
        check_splits(self.splits, rows)
        check_models(self.models, configs, rows)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        task = task_of(workspace)
        if not task.decoder:
            raise ValueError(
                f"stage {workspace.name!r} decodes, and the task {task.name!r} has no decoder."
            )
        beams = {"beam": self.beam}
        if self.greedy:
            # "true": the first end token ends the text, which is what greedy means.
            one = dataclasses.replace(self.beam, width=1, n_best=1, early_stopping="true")
            beams = {"greedy": one} | beams
        writers = {
            (kind, devices): PerConfig(
                functools.partial(make_writer, rows=workspace.rows, beam=beam, devices=devices)
            )
            for kind, beam in beams.items()
            for devices in (0, 1)
        }
        models: dict[str, Any] = {}
        display = workspace.display
        display.start(workspace.name, len(self.models) * len(self.splits) * len(beams))
        done = 0
        for name in self.models:
            if workspace.stopping():
                raise KeyboardInterrupt(f"stopped before {name} was decoded; start again")
            config, params = load_model(workspace.stage_folder(name), display.say)
            check_stage_model(workspace, name, config)
            splits: dict[str, dict[str, float]] = {split: {} for split in self.splits}
            for kind in beams:
                write, arrange = writers[kind, 0](config)
                arranged = arrange(params)
                if self.timed:
                    write_alone, arrange = writers[kind, 1](config)
                    single = write_alone, arrange(params)
                for split in self.splits:
                    numbers = self._measure(workspace, name, kind, split, write, arranged)
                    if self.timed:
                        numbers[f"latency_{kind}"] = self._latency(workspace.rows, split, *single)
                    splits[split] |= numbers
                    done += 1
                    display.step(done, numbers, about=f"{name}, {split}, {kind}")
            models[name] = {"splits": splits}
        display.stop()
        return {"models": models, "metrics": self._describe(tuple(beams), workspace.rows)}

    def _describe(self, kinds: tuple[str, ...], rows: PairRows) -> dict[str, Any]:
        """Titles, units and directions of all that stands in this stage's numbers."""
        columns: dict[str, Any] = {}
        for metric in self.metrics:
            columns |= METRICS[metric].columns
        columns["tokens"] = TOKENS
        if self.timed:
            columns["latency"] = LATENCY
        measured = {"rows": self._rows_of(rows)}
        return {
            f"{name}_{kind}": each | measured | {"title": f"{each['title']}, {kind}"}
            for name, each in columns.items()
            for kind in kinds
        }

    def _rows_of(self, rows: PairRows) -> dict[str, int]:
        return {split: len(rows.splits[split][: self.rows or None]) for split in self.splits}

    def _measure(
        self, workspace: Workspace, name: str, kind: str, split: str, write: Any, params: Any
    ) -> dict[str, float]:
        rows = workspace.rows
        part = rows.splits[split][: self.rows or None]
        decoded = decode_rows(
            write,
            params,
            lambda chosen: rows.sources(part[chosen]),
            rows.lengths(part)[:, 0],
            batch_size=self.batch_size,
        )
        texts = [best for best, *_ in texts_of(decoded, rows.tokenizer.decode)]
        file = workspace.folder / f"{name}.{split}.{kind}.txt"
        file.write_text("".join(" ".join(text.split()) + "\n" for text in texts))
        references = rows.references(split)[: len(texts)]
        normalise = getattr(rows.tokenizer, "normalise", None)
        numbers: dict[str, float] = {}
        for metric in self.metrics:
            numbers |= METRICS[metric](texts, references, normalise)
        numbers["tokens"] = float(decoded.lengths[:, 0].mean())
        return {f"{metric}_{kind}": value for metric, value in numbers.items()}

    def _latency(self, rows: PairRows, split: str, write: Any, params: Any) -> float:
        """Median milliseconds from a source's tokens to its text's, one at a time.

        Sources about as long as the split's median one are decoded.
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
