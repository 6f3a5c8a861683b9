"""Early exit measured: score and wall-clock under every rule, beside the whole model."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from jaxkd.core.batch import Batch
from jaxkd.core.names import did_you_mean
from jaxkd.core.ranges import field
from jaxkd.evaluate.exits import ExitPredictions, predict_exits, score
from jaxkd.exits import rules, stopping
from jaxkd.exits.energy import Counters
from jaxkd.exits.run import EarlyExit
from jaxkd.exits.timing import (
    Measured,
    TimedFunction,
    interleaved,
    millijoules_a_row,
    milliseconds_a_row,
    whole,
)
from jaxkd.metrics.metric import Metric
from jaxkd.models import families
from jaxkd.runs.experiment import Workspace
from jaxkd.stages.evaluate import check_splits
from jaxkd.stages.exits import Calibrate, Calibrated, check_exits, open_calibration
from jaxkd.stages.models import check_stage_model, load_model
from jaxkd.stages.task import primary_metric, task_of

RULES = {
    "patience": rules.Patience,
    "entropy": rules.Entropy,
    "confidence": rules.Confidence,
    "confident_patience": rules.ConfidentPatience,
    "distance": rules.Distance,
    "optimal_stopping": rules.OptimalStopping,
}
FULL = "full"  # the model without exits, among the timed functions


@dataclasses.dataclass(frozen=True)
class Setting:
    """A rule with its numbers, as the report names them."""

    rule: rules.Rule
    title: str
    policy: stopping.Policy | None = None  # what the chain expects of it
    solve: Callable[[stopping.Calibration], stopping.Policy] | None = None  # it, of other rows


@dataclasses.dataclass
class EvaluateExits:
    """Run a split under every rule over its thresholds, and time it.

    Scores are of the whole split; times are of `timed_rows` of its rows, all settings in turns.
    Thresholds for the report's tables are chosen on the calibration split; there optimal stopping
    is scored by tables made of other rows (`cross_fitted`).
    """

    model: str  # stage whose model has exits
    calibration: str  # its Calibrate stage
    full: str  # stage of the model without exits: the score and the time to compare with
    rivals: tuple[str, ...] = ()  # stages of shorter models, another way to the same speed
    split: str = "validation"
    batch_sizes: tuple[int, ...] = field((1, 32), at_least=1)  # that are timed
    timed_rows: int = field(256, at_least=0)  # 0: all of the split
    rounds: int = field(3, at_least=1)  # of timing; the median counts
    skip: tuple[str, ...] = ()  # names of RULES that are left out
    # Thresholds; classes only but for patience and prices.
    patience: tuple[int, ...] = field((), at_least=1)  # empty: all that can stop
    entropy: tuple[float, ...] = field((0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6), at_least=0)
    confidence: tuple[float, ...] = field(
        (0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99), at_least=0, at_most=1
    )
    confident_patience: tuple[float, ...] = field(
        (0.6, 0.7, 0.8, 0.9, 0.95), at_least=0, at_most=1
    )  # two exits in a row
    distance: tuple[float, ...] = field((0.001, 0.01, 0.05, 0.1, 0.5, 1.0), at_least=0)
    # Quality that the time of the whole model is worth: lambda times that time.
    prices: tuple[float, ...] = field(
        (0.0, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.4), at_least=0
    )
    # Optimal stopping: exits that may be reached later are never used; 0: all may be. What counts
    # is the slowest round that Calibrate saw, of a batch as long as any can be.
    deadline_ms: float = field(0.0, at_least=0)

    reads_text: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return (self.model, self.calibration, self.full, *self.rivals)

    def check(self) -> None:
        for name in self.skip:
            if name not in RULES:
                raise ValueError(f"skip={self.skip}: {did_you_mean(name, RULES)}")
        if not self.batch_sizes:
            raise ValueError("batch_sizes is empty: give at least one, such as (1,).")

    def check_among(self, earlier: dict[str, Any], data: Any) -> None:
        stage = earlier[self.calibration]
        if not isinstance(stage, Calibrate) or stage.source != self.model:
            raise ValueError(
                f"calibration={self.calibration!r}: that is no Calibrate stage of {self.model!r}."
            )
        if stage.split == self.split:
            raise ValueError(
                f"split is {self.split!r}, on which {self.calibration!r} was calibrated: what was "
                "fitted to rows says nothing on the same rows. Name another split."
            )

    def check_config(self, configs: dict[str, Any], rows: Any) -> None:
        """Raise ValueError for splits, exits and rules that do not go together."""
        check_splits((self.split,), rows)
        if self.split in getattr(rows, "unlabelled", ()):
            raise ValueError(f"split is {self.split!r}, whose rows have no labels.")
        check_exits(self.model, configs.get(self.model))
        config = configs.get(self.model)
        if config is not None:
            labels = 1 if rows.form == "regression" else len(rows.labels)
            for name, settings in self._fixed_settings(labels, len(config.exits) + 1).items():
                for each in settings:
                    try:
                        each.rule.check(labels, len(config.exits) + 1)
                    except ValueError as error:
                        raise ValueError(f"{name}: {error}") from error

    def run(self, workspace: Workspace) -> dict[str, Any]:
        config, params = load_model(workspace.stage_folder(self.model), workspace.display.say)
        check_stage_model(workspace, self.model, config)
        check_exits(self.model, config)
        rows, metric = workspace.rows.for_model(config), primary_metric(workspace)
        model = families.build(config)
        arranged = model.arrange(params)
        stage = workspace.stages[self.calibration]
        calibrated = open_calibration(workspace.stage_folder(self.calibration))
        milliseconds = calibrated.milliseconds
        predicted = {
            name: predict_exits(model, arranged, list(rows.batches(name, 32)))
            for name in (stage.split, self.split)
        }
        labels, exits = predicted[self.split].logits.shape[2], len(milliseconds)
        settings = self._fixed_settings(labels, exits, stage.tolerance)
        settings["optimal_stopping"] = self._optimal_stopping(calibrated)
        settings = {k: v for k, v in settings.items() if v and k not in self.skip}
        points = {
            rule: [
                self._point(each, predicted[stage.split], predicted[self.split], metric, calibrated)
                for each in of_rule
            ]
            for rule, of_rule in settings.items()
        }
        # Blocks as a list: it runs them one by one.
        run = EarlyExit(model, rules.AtExit(), labels)
        functions: dict[str, TimedFunction] = {
            f"{rule} {i}": _Recorded(run.with_rule(each.rule), params)
            for rule, of_rule in settings.items()
            for i, each in enumerate(of_rule)
        }
        others = {}
        for name in (self.full, *self.rivals):
            other_config, other_params = load_model(
                workspace.stage_folder(name), workspace.display.say
            )
            other = families.build(other_config)
            other_params = other.arrange(other_params)
            functions[f"model {name}"] = whole(other, other_params)
            others[name] = self._of_model(other, other_params, rows, metric, stage.split)
        counters = Counters()
        for size in self.batch_sizes:
            batches = list(rows.batches(self.split, size, self.timed_rows))
            workspace.display.say(
                f"{workspace.name}: timing {len(functions)} settings at batch size {size}"
            )
            measured = interleaved(functions, batches, self.rounds, counters)
            at_exits = predict_exits(model, arranged, batches)
            for rule, of_rule in points.items():
                for i, (point, setting) in enumerate(zip(of_rule, settings[rule], strict=True)):
                    name = f"{rule} {i}"
                    expected = rules.exits_under(setting.rule, at_exits.logits)
                    functions[name].check(setting.title, expected, batches)
                    _add_costs(point, str(size), measured[name], batches)
            for name, other in others.items():
                _add_costs(other, str(size), measured[f"model {name}"], batches)
        last = predicted[self.split]
        return {
            "early_exit": {
                "model": self.model,
                "split": self.split,
                "calibration_split": stage.split,
                "calibration_rows": int(predicted[stage.split].labelled.sum()),
                "rows": int(last.labelled.sum()),
                "timed_rows": min(self.timed_rows or len(last.labels), len(last.labels)),
                "metric": metric.name,
                "no_energy": counters.missing,
                "exits": [config.layers if n == "head" else int(n[5:]) + 1 for n in run.names],
                "layers": config.layers,
                "exit_scores": [
                    score(metric, last.logits[:, i], last.labels, last.labelled)
                    for i in range(exits)
                ],
                "exit_milliseconds": milliseconds.tolist(),
                "exit_slowest_milliseconds": calibrated.slowest.tolist(),
                "full": self.full,
                "models": others,
                "rules": points,
            },
            "metrics": task_of(workspace).describe(),
        }

    def _fixed_settings(
        self, labels: int, exits: int, tolerance: float = 0.1
    ) -> dict[str, list[Setting]]:
        """Rules whose numbers are fields of this stage; `tolerance` as in Calibrate."""
        patience = self.patience or tuple(range(1, exits))
        made = {
            "patience": [Setting(rules.Patience(n, tolerance), f"patience {n}") for n in patience],
            "entropy": [Setting(rules.Entropy(t), f"entropy < {t:g}") for t in self.entropy],
            "confidence": [
                Setting(rules.Confidence(t), f"probability >= {t:g}") for t in self.confidence
            ],
            "confident_patience": [
                Setting(rules.ConfidentPatience(2, t), f"two exits with probability >= {t:g}")
                for t in self.confident_patience
            ],
            "distance": [
                Setting(rules.Distance(1, t), f"symmetric KL < {t:g}") for t in self.distance
            ],
        }
        return {
            name: settings
            for name, settings in made.items()
            if name not in self.skip and not (labels == 1 and RULES[name].classes_only)
        }

    def _optimal_stopping(self, calibrated: Calibrated) -> list[Setting]:
        made = []
        for price in self.prices:
            solve = functools.partial(self._solve, price=price, calibrated=calibrated)
            policy = solve(calibrated.calibration)
            rule = calibrated.calibration.rule(policy)
            made.append(Setting(rule, f"price {price:g}", policy, solve))
        return made

    def _solve(
        self, calibration: stopping.Calibration, price: float, calibrated: Calibrated
    ) -> stopping.Policy:
        """The best policy of a calibration (of all rows, or of some) at the measured times."""
        return stopping.solve(
            calibration.chain,
            np.diff(calibrated.milliseconds, prepend=0.0),
            price / float(calibrated.milliseconds[-1]),
            deadline=self.deadline_ms or float("inf"),
            slowest=calibrated.slowest,
        )

    def _point(
        self,
        setting: Setting,
        calibration: ExitPredictions,
        evaluation: ExitPredictions,
        metric: Metric,
        calibrated: Calibrated,
    ) -> dict[str, Any]:
        """A setting's score and exits on the evaluated split, and on the calibration split."""
        exits = {
            "": rules.exits_under(setting.rule, evaluation.logits),
            "calibration_": _exits_on_calibration_rows(setting, calibration, calibrated),
        }
        made: dict[str, Any] = {"setting": setting.title} | _no_costs()
        for prefix, predicted in (("", evaluation), ("calibration_", calibration)):
            answers = predicted.of(exits[prefix])
            made[f"{prefix}score"] = score(metric, answers, predicted.labels, predicted.labelled)
            made[f"{prefix}expected_milliseconds"] = float(
                calibrated.milliseconds[exits[prefix]].mean()
            )
            quality = stopping.qualities(
                answers[:, None], predicted.labels, calibrated.calibration.answers
            )
            made[f"{prefix}quality"] = float(quality[predicted.labelled].mean())
        share = np.bincount(exits[""], minlength=len(calibrated.milliseconds))
        made["share"] = (share / share.sum()).tolist()
        if setting.policy is not None:
            made["policy_quality"] = setting.policy.quality
            made["policy_milliseconds"] = setting.policy.milliseconds
        return made

    def _of_model(
        self, model: Any, params: Any, rows: Any, metric: Metric, calibration_split: str
    ) -> dict[str, Any]:
        """Score of a model without early exit, on both splits."""
        made: dict[str, Any] = {"layers": model.layers} | _no_costs()
        for prefix, split in (("", self.split), ("calibration_", calibration_split)):
            predicted = predict_exits(model, params, list(rows.batches(split, 32)))
            made[f"{prefix}score"] = score(
                metric, predicted.logits[:, -1], predicted.labels, predicted.labelled
            )
        return made


class _Recorded:
    """Early exit as a timed function that keeps the exits of its first pass."""

    def __init__(self, run: EarlyExit, params: Any):
        self._run, self._params = run, params
        self._exits: list[np.ndarray] = []

    def __call__(self, batch: Batch) -> None:
        self._exits.append(self._run(self._params, batch).exits)

    def check(self, title: str, expected: np.ndarray, batches: Sequence[Batch]) -> None:
        """Compare the exits of a pass with those of logits recorded at all exits; forget them.

        Raises:
          RuntimeError: if more rows differ than rounding at a threshold explains.
        """
        rows = [np.asarray(batch.mask).any(1) for batch in batches]
        first = self._exits[: len(batches)]
        exits = np.concatenate([each[r] for each, r in zip(first, rows, strict=True)])
        self._exits = []
        different = int((exits != expected).sum())
        if different > max(1, 0.01 * len(exits)):
            raise RuntimeError(
                f"{title}: {different} of {len(exits)} rows stopped at other exits than their "
                "logits say. The scores would not be those of what was timed."
            )


def _exits_on_calibration_rows(
    setting: Setting, predicted: ExitPredictions, calibrated: Calibrated
) -> np.ndarray:
    """The exits of the calibration rows under a rule that was not fitted to them."""
    if setting.solve is None:
        return rules.exits_under(setting.rule, predicted.logits)
    return stopping.cross_fitted(
        predicted.logits,
        predicted.labels,
        calibrated.calibration,
        lambda made: made.rule(setting.solve(made)),
    )


def _no_costs() -> dict[str, Any]:
    """By batch size, to be filled by `_add_costs`."""
    return {"milliseconds": {}, "millijoules": {}, "slowest_batch": {}}


def _add_costs(
    point: dict[str, Any], size: str, measured: Measured, batches: Sequence[Batch]
) -> None:
    point["milliseconds"][size] = milliseconds_a_row(measured, batches)
    point["millijoules"][size] = millijoules_a_row(measured, batches)
    point["slowest_batch"][size] = 1000 * float(np.median(measured.seconds, 0).max())
