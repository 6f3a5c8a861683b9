"""Train the model of an earlier stage: on the data alone, or under a teacher."""

import dataclasses
import math
import pathlib
from typing import Any, ClassVar

import jax

from jaxkd.core.ranges import field
from jaxkd.data.rows.base import Rows
from jaxkd.data.rows.masking import Masking
from jaxkd.distil import objective
from jaxkd.distil.on_policy import OnPolicy
from jaxkd.distil.terms import CtcHypotheses, HardLabels
from jaxkd.models import families
from jaxkd.models.model import Params
from jaxkd.models.quantised import TEACHER_DTYPES, megabytes, quantise
from jaxkd.runs.experiment import Workspace
from jaxkd.runs.folders import read_record
from jaxkd.stages import tokenizer
from jaxkd.stages.cost import Cost, training_cost
from jaxkd.stages.fit import Teacher, fit
from jaxkd.stages.generate import check_pairs
from jaxkd.stages.label import Label, open_store, recall_from
from jaxkd.stages.models import check_stage_model, load_model, save_model
from jaxkd.stages.plans import (
    check_chunk,
    check_exits_learn,
    check_masking,
    check_models,
    check_objective,
)
from jaxkd.stages.task import task_of
from jaxkd.tasks.task import evaluator
from jaxkd.train import parallel
from jaxkd.train.optimiser import AdamW


@dataclasses.dataclass
class Train:
    """Minimise weighted terms; without `teacher` and `terms`, the task's own cross-entropy.

    Fields marked result=False change speed, memory or what is shown, and the numbers by rounding
    at most; they are not part of the fingerprint.
    """

    source: str  # stage whose model is trained
    teacher: str = ""  # stage whose model teaches; empty: none
    terms: objective.Terms = dataclasses.field(default_factory=dict)  # empty: the task's own
    targets: str = ""  # Choose stage whose targets are learned; empty: the references
    labels: str = ""  # Label stage with the teacher's outputs; empty: it runs in every step
    teacher_dtype: str = field("float32", one_of=TEACHER_DTYPES)  # of its weights, in less memory
    on_policy: OnPolicy = dataclasses.field(default_factory=OnPolicy)  # learn from own samples
    layer_drop: float = field(0.0, at_least=0, below=1)  # probability that a block is skipped
    freeze: tuple[str, ...] = ()  # patterns of parameter names that do not learn
    steps: int = field(1000, at_least=1)  # optimiser updates, at most
    epochs: float = field(0.0, at_least=0)  # passes over the training rows, at most; 0: any number
    # new_head: only if the head of `source` does not know the labels; else it stays as it is.
    train_if: str = field("always", one_of=("always", "new_head"))
    batch_size: int = field(16, at_least=1)  # rows an update, over all devices
    # In the fingerprint: each micro-batch draws its own dropout.
    accumulate: int = field(1, at_least=1)  # micro-batches an update, to save memory
    optimiser: AdamW = dataclasses.field(default_factory=AdamW)
    masking: Masking = dataclasses.field(default_factory=Masking)  # of masked language models
    # Which lines metrics.jsonl has.
    log_every: int = field(20, at_least=1, result=False)  # steps
    # Where an interrupted run goes on; it ends in the same bits.
    save_every: int = field(200, at_least=1, result=False)  # steps
    # In the fingerprint: they make the validation curve, and with patience they choose the model.
    evaluate_every: int = field(200, at_least=0)  # steps; 0: only after the last
    evaluate_rows: int = field(256, at_least=0)  # of the validation split, while training; 0: all
    # The same step on other devices: sums in another order. The devices are no configuration.
    parallel: str = field(
        "auto", one_of=("auto", *parallel.STRATEGIES), result=False
    )  # jitted, pmapped, sharded; auto: pmapped on several devices
    tensor: int = field(1, at_least=1, result=False)  # sharded: devices that share each block
    # The same sums in another order.
    chunk: int = field(0, at_least=0, result=False)  # positions whose logits exist at once; 0: all
    patience: int = field(0, at_least=0)  # evaluations without a better loss before it stops; 0: no

    reads_text: ClassVar[bool] = True
    on_all_hosts: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        named = (self.teacher, self.source, self.labels, self.targets)
        return tuple(name for name in named if name)

    def check(self) -> None:
        parallel.strategy(self.parallel, self.tensor)
        devices = 1 if self.parallel == "jitted" else jax.device_count() // self.tensor
        parallel.check_batch(self.batch_size, self.accumulate, devices)
        self.optimiser.check()
        self.masking.check()
        self.on_policy.check()
        if self.terms:
            objective.check(self.terms)
        self._check_teacher()
        if self.labels and self.teacher_dtype != "float32":
            raise ValueError(
                f"labels={self.labels!r} and teacher_dtype={self.teacher_dtype!r}: a stored "
                "teacher is not held in memory. Give one of the two."
            )
        sampled = self.on_policy.share > 0
        if sampled and self.labels:
            raise ValueError(
                f"labels={self.labels!r} and on_policy.share={self.on_policy.share}: nothing is "
                "stored of what the student will write. Leave labels empty."
            )
        copied = [name for name, term in self.terms.items() if type(term) is HardLabels]
        if sampled and copied:
            raise ValueError(
                f"terms {copied} and on_policy.share={self.on_policy.share}: the student would "
                "learn its own samples as if they were right. Leave them out."
            )
        internal = [name for name, term in self.terms.items() if getattr(term, "internals", False)]
        if self.layer_drop and internal:
            raise ValueError(
                f"layer_drop={self.layer_drop} and terms {internal}: these compare attention, "
                "which a block that LayerDrop skips does not compute. Set layer_drop to 0, or "
                "leave them out."
            )

    def _check_teacher(self) -> None:
        """Raise ValueError if terms and options need a teacher and there is none, or vice versa."""
        if self.teacher:
            if not self.terms:
                raise ValueError(
                    f"teacher={self.teacher!r} and no terms: it would teach nothing. Give terms, "
                    "for example those of configs/recipes.py, or leave teacher empty."
                )
            return
        needing = [n for n, term in self.terms.items() if getattr(term, "needs_teacher", False)]
        options = {
            f"terms {needing}": needing,
            f"labels={self.labels!r}": self.labels,
            f"on_policy.share={self.on_policy.share}": self.on_policy.share,
            f"teacher_dtype={self.teacher_dtype!r}": self.teacher_dtype != "float32",
        }
        for words, needs in options.items():
            if needs:
                raise ValueError(f"{words} and teacher is empty: name the stage of a teacher.")

    def check_among(self, earlier: dict[str, Any], data: Any) -> None:
        if self.targets and not getattr(earlier[self.targets], "gives_targets", False):
            raise ValueError(f"targets={self.targets!r}: that is no Choose stage.")
        ctc = getattr(data, "ctc", False)
        objective.check_ctc(self.terms, ctc)
        if self.on_policy.share:
            check_pairs(data)
            if ctc:
                raise ValueError(
                    f"on_policy.share={self.on_policy.share} and data.ctc: a CTC model has one "
                    "label a position and no samples of its own to continue."
                )
        hypotheses = [n for n, term in self.terms.items() if isinstance(term, CtcHypotheses)]
        if hypotheses and not self.labels:
            raise ValueError(
                f"terms {hypotheses} need stored hypotheses of the teacher: a Label stage of kind "
                "'hypotheses', named by labels."
            )
        if not self.labels:
            return
        if self.targets:
            raise ValueError(
                f"labels={self.labels!r} and targets={self.targets!r}: the stored outputs are of "
                "the references. Leave labels empty: the teacher then runs on the new targets."
            )
        stage = earlier[self.labels]
        if not isinstance(stage, Label) or stage.teacher != self.teacher:
            raise ValueError(
                f"labels={self.labels!r}: that is no Label stage of the teacher {self.teacher!r}."
            )
        objective.check_stored(self.terms, stage.kind)

    def plan(self, configs: dict[str, Any], rows: Rows | None) -> families.Config | None:
        """The config of the model this stage will leave: that of its source."""
        return configs.get(self.source)

    def check_config(self, configs: dict[str, Any], rows: Rows) -> None:
        """Raise ValueError if models, terms and data do not fit; nothing is computed yet."""
        check_masking(self.masking, rows)
        check_chunk(self.chunk, rows)
        student, teacher = configs.get(self.source), configs.get(self.teacher)
        check_models((self.source, self.teacher), configs, rows)
        starts = [getattr(config, "start", None) for config in (student, teacher)]
        if student is not None and teacher is not None and starts[0] != starts[1]:
            raise ValueError(
                f"{self.source!r} begins to write with token {starts[0]} and {self.teacher!r} with "
                f"token {starts[1]}: they do not see the same sequences. Make the student from its "
                "teacher (Prune), or give both one tokenizer."
            )
        if student is not None:
            check_exits_learn(self.source, student, self.terms, self.freeze, self.patience)
        if student is not None and (teacher is not None or not self.teacher):
            check_objective(self, student, None if self.labels else teacher, rows)

    def steps_over(self, rows: int) -> int:
        """Optimiser updates of a training on that many rows: `steps`, or fewer by `epochs`."""
        if not self.epochs:
            return self.steps
        return max(1, min(self.steps, math.ceil(self.epochs * rows / self.batch_size)))

    def cost(
        self, configs: dict[str, Any], rows: Rows, task: Any, seed: int, free: int | None = None
    ) -> Cost | None:
        """What the training will need; None if its models or stored targets are not known yet."""
        student, teacher = configs.get(self.source), configs.get(self.teacher)
        if student is None or self.labels or (self.teacher and teacher is None):
            return None
        return training_cost(self, student, teacher, self.terms or task.terms(), rows, seed, free)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        if self.train_if == "new_head" and not _new_head(workspace.stage_folder(self.source)):
            return self._unchanged(workspace)
        steps = self.steps_over(len(workspace.rows.splits["train"]))
        return dataclasses.replace(self, steps=steps)._train(workspace)

    def _unchanged(self, workspace: Workspace) -> dict[str, Any]:
        workspace.display.say(
            f"{workspace.name}: {self.source} predicts these targets already and is used as it is"
        )
        config, params = self._student(workspace)
        return save_model(workspace, config, params) | {"steps": 0}

    def _train(self, workspace: Workspace) -> dict[str, Any]:
        terms = self.terms or task_of(workspace).terms()
        if self.labels:
            config, params = self._student(workspace)
            label = workspace.stages[self.labels]
            store = open_store(workspace, self.labels, self.teacher, label.masking)
            # The text is masked as it was when the teacher labelled it.
            stage = dataclasses.replace(self, masking=label.masking)
            teacher = self._teacher_head(workspace) if label.kind == "states" else None
            recall = recall_from(store)
            return fit(stage, workspace, config, params, terms, teacher=teacher, recall=recall)
        # The teacher first: what is wrong with it is often wrong with the student cut from it.
        teacher, numbers = self._teacher(workspace) if self.teacher else (None, {})
        config, params = self._student(workspace)
        return numbers | fit(self, workspace, config, params, terms, teacher=teacher)

    def _student(self, workspace: Workspace) -> tuple[families.Config, Params]:
        """The model that is trained; its tokenizer is copied to this stage."""
        folder = workspace.stage_folder(self.source)
        config, params = load_model(folder, workspace.display.say, on_host=True)
        check_stage_model(workspace, self.source, config)
        tokenizer.keep(folder, workspace.folder)
        return config, params

    def _teacher_head(self, workspace: Workspace) -> Teacher:
        """What turns the teacher's stored states into predictions: nothing of its blocks."""
        config, params = load_model(
            workspace.stage_folder(self.teacher), workspace.display.say, on_host=True
        )
        embed = {"token": params["embed"]["token"]}
        return Teacher(config, {"embed": embed, "head": params["head"], "blocks": []}, stored=True)

    def _teacher(self, workspace: Workspace) -> tuple[Teacher, dict[str, Any]]:
        """The teacher in its dtype, and what the dtype saves in memory and costs in KL."""
        whole = self.teacher_dtype == "float32"
        config, params = load_model(
            workspace.stage_folder(self.teacher), workspace.display.say, on_host=whole
        )
        check_stage_model(workspace, self.teacher, config)
        if whole:
            return Teacher(config, params), {}
        quantised = quantise(params, self.teacher_dtype)
        model = families.build(config)
        batches = workspace.rows.for_model(config).batches(
            "validation", self.batch_size, self.evaluate_rows
        )
        measure = evaluator(task_of(workspace), model, model, chunk=self.chunk)
        kl = measure(quantised, params, batches)["kl"]
        numbers = {
            "teacher_megabytes": megabytes(quantised),
            "teacher_megabytes_float32": megabytes(params),
            "teacher_kl": kl,
        }
        workspace.display.say(
            f"{workspace.name}: the teacher in {self.teacher_dtype} takes "
            f"{numbers['teacher_megabytes']:.1f} MB instead of "
            f"{numbers['teacher_megabytes_float32']:.1f}; its KL from itself in float32 is "
            f"{kl:.2g} nats a target"
        )
        return Teacher(config, quantised), numbers


def _new_head(source: pathlib.Path) -> bool:
    """Whether the head of the stage's model has still to learn; if it does not say: yes."""
    record = read_record(source / "done.json")
    return record is None or bool(record["metrics"].get("new_head", True))
