"""Early exits: classifiers added to a model's blocks, and what a calibration split says of them."""

import dataclasses
import pathlib
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from jaxkd.core.batch import Batch
from jaxkd.core.ranges import field
from jaxkd.data.rows.base import Rows
from jaxkd.evaluate.exits import answer_quality, predict_exits
from jaxkd.exits.rules import AtExit
from jaxkd.exits.run import EarlyExit
from jaxkd.exits.stopping import Calibration, calibrate, check_rows
from jaxkd.exits.timing import exit_milliseconds, slowest_milliseconds
from jaxkd.models import families
from jaxkd.models.config import EXIT_POOLERS, READS
from jaxkd.models.parts import exit_blocks
from jaxkd.runs.experiment import Workspace
from jaxkd.stages import tokenizer
from jaxkd.stages.evaluate import check_splits
from jaxkd.stages.models import check_stage_model, load_model, save_model
from jaxkd.stages.task import primary_metric

CALIBRATION = "calibration"


@dataclasses.dataclass
class AddExits:
    """A model with a new classifier after each of some blocks; all else stays as it was.

    A trained head knows the labels, and their mean in a regression: exits that start from it need
    fewer steps. DeeBERT and PABEE draw theirs at random.
    """

    source: str  # stage whose model gets exits
    blocks: tuple[int, ...] = field((), at_least=0)  # from 0; empty: after all but the last
    pooler: str = field("own", one_of=EXIT_POOLERS)  # of an exit, or the head's shared by all
    reads: str = field("token", one_of=READS)  # an exit: the head's token, or the mean of all
    start: str = field("head", one_of=("head", "random"))  # an exit's weights before training

    def inputs(self) -> tuple[str, ...]:
        return (self.source,)

    def check(self) -> None:
        pass

    def plan(self, configs: dict[str, Any], rows: Rows | None) -> families.Config | None:
        """The config with exits; ValueError for blocks or a head that cannot have any."""
        config = configs.get(self.source)
        return None if config is None else self._with_exits(config)

    def _with_exits(self, config: families.Config) -> families.Config:
        if config.exits:
            raise ValueError(
                f"source={self.source!r} has exits after blocks {config.exits} already; they would "
                "be drawn anew. Train it as it is, or name a stage without exits."
            )
        blocks = tuple(self.blocks) or tuple(range(config.layers - 1))
        changed = dataclasses.replace(
            config, exits=blocks, exit_pooler=self.pooler, exit_reads=self.reads
        )
        changed.check()
        if not blocks:
            raise ValueError(f"a model of {config.layers} block has no room for an earlier exit.")
        return changed

    def run(self, workspace: Workspace) -> dict[str, Any]:
        folder = workspace.stage_folder(self.source)
        config, params = load_model(folder, workspace.display.say, on_host=True)
        config = self._with_exits(config)
        drawn = families.build(config).init(workspace.seed, workspace.name)
        tokenizer.keep(folder, workspace.folder)
        new = {name: drawn[name] for name in exit_blocks(drawn)}
        if self.start == "head":
            new = {name: {part: params["head"][part] for part in new[name]} for name in new}
        return {"exits": list(config.exits)} | save_model(workspace, config, params | new)


@dataclasses.dataclass
class Calibrate:
    """How right each exit is, how rows move between exits, and what each exit costs here.

    Writes calibration.npz (bins and chain of exits/stopping.py) and returns milliseconds a row: the
    mean, and the slowest round of a batch as long as any can be. The split is held out from
    training (`data.calibration`), and is not the one that is evaluated.
    """

    source: str  # stage whose model has exits
    split: str = CALIBRATION
    bins: int = field(8, at_least=1)  # of how sure an exit is, with equally many rows each
    # What an answer is worth: to the task's primary metric (evaluate/exits.py), or 1 if right.
    quality: str = field("metric", one_of=("metric", "accuracy"))
    tolerance: float = field(0.1, above=0)  # regression: exits agree below this difference
    batch_size: int = field(1, at_least=1)  # rows of the batches that are timed
    timed_rows: int = field(64, at_least=1)
    rounds: int = field(5, at_least=1)  # of timing; the median counts

    reads_text: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return (self.source,)

    def check(self) -> None:
        if self.split == "train":
            raise ValueError(
                "split is 'train': exits are surer of rows they were trained on, and would stop "
                "too early elsewhere. Hold rows out: --config.data.calibration=10."
            )

    def check_config(self, configs: dict[str, Any], rows: Any) -> None:
        """Raise ValueError for a model without exits, or a split with too few rows."""
        if self.split == CALIBRATION and CALIBRATION not in rows.splits:
            raise ValueError(
                f"{rows.corpus} has no split {CALIBRATION!r}: no rows are held out for it. Set "
                "--config.data.calibration=10 (percent of the training rows)."
            )
        check_splits((self.split,), rows)
        if self.split in getattr(rows, "unlabelled", ()):
            raise ValueError(f"split is {self.split!r}, whose rows have no labels.")
        check_rows(len(rows.splits[self.split]), self.bins)
        check_exits(self.source, configs.get(self.source))

    def run(self, workspace: Workspace) -> dict[str, Any]:
        config, params = load_model(workspace.stage_folder(self.source), workspace.display.say)
        check_stage_model(workspace, self.source, config)
        check_exits(self.source, config)
        model, rows = families.build(config), workspace.rows.for_model(config)
        batches = list(rows.batches(self.split, 32))
        predicted = predict_exits(model, model.arrange(params), batches)
        known = predicted.labelled
        logits, labels = predicted.logits[known], predicted.labels[known]
        answers = None
        if self.quality == "metric" and logits.shape[2] > 1:
            answers = answer_quality(primary_metric(workspace), logits[:, -1], labels)
        calibration = calibrate(
            logits, labels, bins=self.bins, tolerance=self.tolerance, answers=answers
        )
        run = EarlyExit(model, AtExit(), predicted.logits.shape[2])
        timed = list(rows.batches(self.split, self.batch_size, self.timed_rows))
        milliseconds = exit_milliseconds(run, params, timed, self.rounds)
        longest = lengthened(timed[0], rows.describe()["length"])
        slowest = slowest_milliseconds(run, params, longest, self.rounds)
        file = workspace.folder / "calibration.npz"
        np.savez(file, milliseconds=milliseconds, slowest=slowest, **calibration.arrays())
        chain = calibration.chain
        return {
            "rows": int(known.sum()),
            "exits": list(run.names),
            "milliseconds": milliseconds.tolist(),
            "slowest_milliseconds": slowest.tolist(),
            "quality": (chain.share * chain.quality).sum(1).tolist(),
        }


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """What a Calibrate stage left."""

    calibration: Calibration
    milliseconds: Float[np.ndarray, " N"]  # a row until each exit
    slowest: Float[np.ndarray, " N"]  # until each exit, of a batch as long as any can be


def open_calibration(folder: pathlib.Path) -> Calibrated:
    """What the Calibrate stage of that folder left."""
    with np.load(folder / "calibration.npz") as arrays:
        calibration = Calibration.from_arrays(arrays)
        return Calibrated(calibration, arrays["milliseconds"], arrays["slowest"])


def lengthened(batch: Batch, length: int) -> Batch:
    """The same rows, padded to that many tokens."""

    def pad(array: Any) -> Any:
        return None if array is None else np.pad(array, ((0, 0), (0, length - array.shape[1])))

    # Padding has the mask's False; which token stands there does not matter.
    return dataclasses.replace(
        batch, tokens=pad(batch.tokens), mask=pad(batch.mask), segments=pad(batch.segments)
    )


def check_exits(stage: str, config: families.Config | None) -> None:
    """Raise ValueError for a model that is known to have no exits."""
    if config is not None and not config.exits:
        raise ValueError(
            f"stage {stage!r} leaves a model without early exits (its config's exits is ()). Add "
            "them before training: an AddExits stage."
        )
