"""Measure models over whole splits, each beside its teacher and the line of a constant answer."""

import dataclasses
from typing import Any, ClassVar

from jaxkd.core.names import did_you_mean
from jaxkd.core.ranges import field
from jaxkd.core.tree import parameter_count
from jaxkd.evaluate import baselines, examples
from jaxkd.evaluate.predictions import make_evaluate
from jaxkd.metrics.metric import description
from jaxkd.models import families
from jaxkd.runs.experiment import Workspace
from jaxkd.stages.models import check_stage_model, load_model
from jaxkd.stages.per_config import PerConfig
from jaxkd.stages.plans import check_models
from jaxkd.stages.task import task_of
from jaxkd.tasks.task import Task

OVER_A_VOCABULARY = ("masked_lm", "causal_lm", "seq2seq", "continuation")
CLASSES = ("classification", "multi_task")

UNDER_UNIGRAM = description("under the unigram line", "nats")
UNIGRAM = description("unigram", "nats", False, "none") | {"baseline_of": "loss"}


@dataclasses.dataclass
class Evaluate:
    """The task's metrics of each model; those beside a teacher where a model was distilled.

    All models see the same masks: every token alike (no smoothing), the same in every seed.
    """

    models: tuple[str, ...]  # stages
    splits: tuple[str, ...] = ("validation",)  # of the data; none: all but train
    batch_size: int = 32
    # Positions whose logits exist at once, to save memory; 0: all. The same sums in another order.
    chunk: int = field(0, at_least=0, result=False)
    # Write each model's prediction of each row (predictions.MODEL.SPLIT.npz and .tsv), and keep
    # rows that a student gets wrong and its teacher right for the report.
    predictions: bool = False

    reads_text: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return check_names("models", self.models)

    def check(self) -> None:
        check_names("models", self.models)
        if tuple(self.splits):
            check_names("splits", self.splits)
        check_at_least("batch_size", self.batch_size, 1)
        check_at_least("chunk", self.chunk, 0)

    def check_config(self, configs: dict[str, Any], rows: Any) -> None:
        """Raise ValueError for what the opened data cannot give, before any stage runs."""
        check_splits(self.splits, rows)
        check_models(self.models, configs, rows)
        if self.chunk and rows.form not in OVER_A_VOCABULARY:
            raise ValueError(
                f"chunk is {self.chunk}, and {rows.form} has no vocabulary whose logits would be "
                "cut into chunks. Leave chunk at 0."
            )
        if self.predictions and rows.form not in ("classification", "regression"):
            raise ValueError(
                f"predictions=True: {rows.form} has no one prediction a row. It is for "
                "classification and regression."
            )

    def run(self, workspace: Workspace) -> dict[str, Any]:
        rows, task = workspace.rows, task_of(workspace)
        display = workspace.display
        splits = self.splits or tuple(split for split in rows.splits if split != "train")
        display.start(workspace.name, len(self.models) * len(splits))
        lines = {split: self._baselines(rows, split) for split in splits}
        models: dict[str, Any] = {}
        written: dict[tuple[str, str], examples.Predictions] = {}
        evaluators = PerConfig(
            lambda config, teacher: make_evaluate(
                families.build(config),
                families.build(teacher) if teacher else None,
                task.metrics,
                chunk=self.chunk,
            )
        )
        predictors = PerConfig(lambda config: examples.make_predict(families.build(config)))
        for i, name in enumerate(self.models):
            if workspace.stopping():
                raise KeyboardInterrupt(f"stopped before {name} was evaluated; start again")
            config, params = load_model(workspace.stage_folder(name), display.say)
            check_stage_model(workspace, name, config)
            teacher_name = getattr(workspace.stages[name], "teacher", None) or None
            teacher = teacher_name and load_model(workspace.stage_folder(teacher_name), display.say)
            model = families.build(config)
            teacher_model = families.build(teacher[0]) if teacher else None
            evaluate = evaluators(config, teacher[0] if teacher else None)
            arranged = model.arrange(params)
            teacher_params = teacher_model.arrange(teacher[1]) if teacher else None
            models[name] = {
                "teacher": teacher_name,
                "layers": config.layers,
                "width": config.width,
                "parameters": parameter_count(params),
                "megabytes": 4 * parameter_count(params) / 1e6,
                "splits": {},
            }
            for j, split in enumerate(splits, 1):
                numbers: dict[str, float] = {}
                labelled = split not in getattr(rows, "unlabelled", ())
                if labelled and (rows.form not in CLASSES or "majority" in lines[split]):
                    batches = rows.for_model(config).batches(split, self.batch_size)
                    numbers = evaluate(arranged, teacher_params, batches) | lines[split]
                    if "unigram" in numbers:
                        numbers["under_unigram"] = numbers["unigram"] - numbers["loss"]
                models[name]["splits"][split] = numbers
                if self.predictions:
                    batches = rows.batches(split, self.batch_size)
                    predicted = predictors(config)(arranged, batches, batches.order)
                    written[name, split] = predicted
                    file = workspace.folder / f"predictions.{name}.{split}"
                    examples.save(predicted, file, task.labels)
                display.step(i * len(splits) + j, numbers, split=split, about=f"{name}, {split}")
        display.stop()
        result = {
            "models": models,
            "metrics": self._describe(task, rows),
            "primary": task.primary,
        }
        if self.predictions and task.labels:
            result["student_errors"] = self._examples(models, written, task, rows)
        return result

    def _baselines(self, rows: Any, split: str) -> dict[str, float]:
        """What a constant answer reaches on the split."""
        if rows.form in CLASSES:
            counts = baselines.class_counts(rows.batches(split, self.batch_size))
            return baselines.majority(counts, rows.parts)
        if rows.form in OVER_A_VOCABULARY or rows.form == "ctc":
            return {"unigram": rows.unigram_at_targets(split, self.batch_size)}
        return {}

    def _describe(self, task: Task, rows: Any) -> dict[str, Any]:
        """Titles, units and directions of all that stands in this stage's numbers."""
        described: dict[str, Any] = {}
        for name, each in task.describe().items():
            described[name] = each
            if name == "loss" and rows.form in OVER_A_VOCABULARY:
                described["under_unigram"] = UNDER_UNIGRAM
        if rows.form in OVER_A_VOCABULARY or rows.form == "ctc":
            described["unigram"] = UNIGRAM
        if rows.form in CLASSES:
            for part in ("", *rows.parts):
                suffix = f"_{part}" if part else ""
                described[f"majority{suffix}"] = description(
                    "always the most frequent class", "%", columns="none"
                ) | {"baseline_of": f"accuracy{suffix}"}
        return described

    def _examples(
        self,
        models: dict[str, Any],
        written: dict[tuple[str, str], examples.Predictions],
        task: Task,
        rows: Any,
    ) -> dict[str, Any]:
        """By student and split: rows it gets wrong and its teacher, evaluated too, right."""
        errors_by_student: dict[str, Any] = {}
        for (name, split), predicted in written.items():
            teacher = written.get((models[name]["teacher"], split))
            if teacher is not None:
                errors = examples.student_errors(predicted, teacher, task.labels)
                numbers = [each["index"] for each in errors["examples"]]
                for each, texts in zip(errors["examples"], rows.texts(split, numbers), strict=True):
                    each["text"] = " | ".join(texts)
                errors_by_student.setdefault(name, {})[split] = errors
        return errors_by_student


def check_splits(splits: tuple[str, ...], rows: Any) -> None:
    """Raise ValueError for a split that the opened data does not have."""
    for split in splits:
        if split not in rows.splits:
            raise ValueError(
                f"splits={tuple(splits)}: {rows.corpus} has no split {split!r}. "
                + did_you_mean(split, rows.splits)
            )


def check_names(field: str, names: Any) -> tuple[str, ...]:
    """The names as a tuple.

    Raises:
      ValueError: unless they are a tuple or list of at least one text, none of them twice.
    """
    right = isinstance(names, tuple | list) and all(isinstance(n, str) and n for n in names)
    if not right or not names or len(set(names)) < len(names):
        raise ValueError(
            f"{field}={names!r}: at least one name, and each only once, as in "
            f"\"('teacher','student')\" or \"('validation',)\"."
        )
    return tuple(names)


def check_at_least(field: str, value: Any, least: int) -> None:
    """Raise ValueError unless it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{field} is {value!r}; it is a whole number, at least {least}.")
