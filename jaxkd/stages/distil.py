"""Teach a student: any set of weighted terms, under a teacher that does not learn."""

import dataclasses
from typing import Any

from jaxkd.core.names import did_you_mean
from jaxkd.distil import objective
from jaxkd.distil.on_policy import OnPolicy
from jaxkd.distil.terms import CtcHypotheses, HardLabels
from jaxkd.models import families
from jaxkd.models.model import Params
from jaxkd.models.quantised import TEACHER_DTYPES, megabytes, quantise
from jaxkd.runs.experiment import Workspace
from jaxkd.stages import tokenizer
from jaxkd.stages.generate import check_pairs
from jaxkd.stages.label import Label, open_store, recall_from
from jaxkd.stages.training import (
    Training,
    check_head,
    check_tokenizer,
    load_model,
    measure_of,
)


@dataclasses.dataclass
class Distil(Training):
    """Distil the model of one stage into that of another."""

    teacher: str = "teacher"
    student: str = "student_init"
    terms: objective.Terms = dataclasses.field(default_factory=dict)
    labels: str = ""  # stage that stored what the teacher says; empty: it says it in every step
    teacher_dtype: str = "float32"  # or bfloat16, int8: its weights in less memory
    on_policy: OnPolicy = dataclasses.field(default_factory=OnPolicy)  # learn from its own words

    def inputs(self) -> tuple[str, ...]:
        stored = (self.labels,) if self.labels else ()
        return (self.teacher, self.student, *stored, *self.chosen())

    def check(self) -> None:
        super().check()
        objective.check(self.terms)
        if self.teacher_dtype not in TEACHER_DTYPES:
            raise ValueError(
                f"teacher_dtype={self.teacher_dtype!r}. "
                + did_you_mean(self.teacher_dtype, TEACHER_DTYPES)
            )
        if self.labels and self.teacher_dtype != "float32":
            raise ValueError(
                f"labels={self.labels!r} and teacher_dtype={self.teacher_dtype!r}: a stored "
                "teacher is not held in memory. Give one of the two."
            )

        self.on_policy.check()
        own = self.on_policy.share > 0
        if own and self.labels:
            raise ValueError(
                f"labels={self.labels!r} and on_policy.share={self.on_policy.share}: nothing is "
                "stored of what the student will write. Leave labels empty."
            )
        copied = [name for name, term in self.terms.items() if type(term) is HardLabels]
        if own and copied:
            raise ValueError(
                f"terms {copied} and on_policy.share={self.on_policy.share}: the student would "
                "learn its own samples as if they were right. Leave them out."
            )

    def check_among(self, earlier: dict[str, Any], data: Any) -> None:
        super().check_among(earlier, data)
        ctc = getattr(data, "ctc", False)
        objective.check_ctc(self.terms, ctc)
        if self.on_policy.share:
            check_pairs(data)
            if ctc:
                raise ValueError(
                    f"on_policy.share={self.on_policy.share} and data.ctc: what names labels at "
                    "places has no words of its own to go on from."
                )
        spelt = [name for name, term in self.terms.items() if isinstance(term, CtcHypotheses)]
        if spelt and not self.labels:
            raise ValueError(
                f"terms {spelt} need what a teacher spelt before: a Label stage of kind "
                "'hypotheses', named by labels."
            )
        if not self.labels:
            return
        if self.targets:
            raise ValueError(
                f"labels={self.labels!r} and targets={self.targets!r}: what was stored is of the "
                "references. Leave labels empty: the teacher then tells of the new targets."
            )
        stage = earlier[self.labels]
        if not isinstance(stage, Label) or stage.teacher != self.teacher:
            raise ValueError(
                f"labels={self.labels!r}: that is no Label stage of the teacher {self.teacher!r}."
            )
        objective.check_stored(self.terms, stage.kind)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        if self.labels:
            config, params = self._student_init(workspace)
            label = workspace.stages[self.labels]
            found = open_store(workspace, self.labels, self.teacher, label.masking)
            # The text is masked as it was when the teacher was asked.
            learner = dataclasses.replace(self, masking=label.masking)
            teacher = self._head(workspace) if label.kind == "states" else None
            recall = recall_from(found)
            return learner.fit(
                workspace, config, params, self.terms, teacher=teacher, recall=recall
            )
        # The teacher first: what is wrong with it is often wrong with the student cut from it.
        teacher, told = self._held(workspace)
        config, params = self._student_init(workspace)
        return told | self.fit(
            workspace, config, params, self.terms, teacher=teacher, on_policy=self.on_policy
        )

    def _student_init(self, workspace: Workspace) -> tuple[families.Config, Params]:
        """The model that is to learn; its tokenizer goes on with it."""
        config, params = load_model(
            workspace.stage_folder(self.student), workspace.display.say, on_host=True
        )
        check_head(self.student, config, workspace.rows)
        check_tokenizer(workspace, self.student, config)
        tokenizer.keep(workspace.stage_folder(self.student), workspace.folder)
        return config, params

    def _head(self, workspace: Workspace) -> tuple[families.Config, Params]:
        """What makes predictions of the teacher's stored states: nothing of its blocks."""
        config, params = load_model(
            workspace.stage_folder(self.teacher), workspace.display.say, on_host=True
        )
        embed = {"token": params["embed"]["token"]}
        return config, {"embed": embed, "head": params["head"], "blocks": []}

    def _held(self, workspace: Workspace) -> tuple[tuple[families.Config, Params], dict[str, Any]]:
        """The teacher as it is kept in memory, and what that costs and loses."""
        whole = self.teacher_dtype == "float32"
        config, params = load_model(
            workspace.stage_folder(self.teacher), workspace.display.say, on_host=whole
        )
        check_head(self.teacher, config, workspace.rows)
        check_tokenizer(workspace, self.teacher, config)
        if whole:
            return (config, params), {}
        held = quantise(params, self.teacher_dtype)
        model = families.build(config)
        batches = workspace.rows.batches("validation", self.batch_size, self.evaluate_rows)
        lost = measure_of(workspace.rows, model, model, chunk=self.chunk)(held, params, batches)
        told = {
            "teacher_megabytes": megabytes(held),
            "teacher_megabytes_float32": megabytes(params),
            "teacher_kl": lost["kl"],
        }
        workspace.display.say(
            f"{workspace.name}: the teacher in {self.teacher_dtype} takes "
            f"{told['teacher_megabytes']:.1f} MB instead of "
            f"{told['teacher_megabytes_float32']:.1f}; its KL from itself in float32 is "
            f"{lost['kl']:.2g} nats a target"
        )
        return (config, held), told
