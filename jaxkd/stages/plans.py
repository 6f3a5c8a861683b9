"""What is checked of a training once models and data are known, before anything is computed."""

import functools
from collections.abc import Sequence
from typing import Any

import jax

from jaxkd.core.names import matches
from jaxkd.data.rows.base import Rows
from jaxkd.data.rows.masking import Masking
from jaxkd.distil import objective
from jaxkd.distil.terms import AtExits
from jaxkd.models import families
from jaxkd.models.model import forward
from jaxkd.models.parts import exit_name
from jaxkd.stages.models import check_labels
from jaxkd.tasks.task import terms_of_data

MASKED = "masked_lm"
NO_CHANGE = Masking()
VOCABULARY = (MASKED, "causal_lm", "seq2seq", "continuation")  # forms whose targets are tokens


def check_masking(masking: Masking, rows: Rows, default: Masking = NO_CHANGE) -> None:
    """Raise ValueError for a masking that was changed where the data masks nothing."""
    if rows.form != MASKED and masking != default:
        raise ValueError(
            f"masking is {masking}, and the data ({type(rows).__name__}) masks no tokens: only "
            "masked language models do. Leave masking as it is."
        )


def check_chunk(chunk: int, rows: Rows) -> None:
    """Raise ValueError for a chunk where logits are not those of a vocabulary at each position."""
    if chunk and rows.form not in VOCABULARY:
        raise ValueError(
            f"chunk is {chunk}, and the targets of the data ({type(rows).__name__}) are no tokens "
            "of a vocabulary, so that there is nothing to cut. Set it to 0."
        )


def check_head(name: str, config: families.Config, rows: Rows) -> None:
    """Raise ValueError unless the planned model has the head that the data needs."""
    if config.head != rows.head:
        raise ValueError(
            f"stage {name!r}: a {config.family} with the head {config.head} does not predict the "
            f"targets of the data ({type(rows).__name__}), which need the head {rows.head}."
        )


def check_models(names: tuple[str, ...], configs: dict[str, Any], rows: Any) -> None:
    """Raise ValueError for a planned model that does not predict what the data asks for."""
    for name in names:
        config = configs.get(name)
        if config is not None:
            check_head(name, config, rows)
            check_labels(name, config, rows)


def check_exits_learn(
    name: str,
    config: families.Config,
    terms: objective.Terms,
    freeze: Sequence[str],
    patience: int = 0,
) -> None:
    """Raise ValueError if a model has early exits that nothing trains, or nothing stops."""

    def is_frozen(part: str) -> bool:
        return matches(f"{part}/classify/kernel", freeze)

    if not config.exits:
        return
    if patience and is_frozen("head"):
        raise ValueError(
            f"patience is {patience}, and the head of {name!r} is frozen: the validation loss, "
            "which is the head's, would never change. Set patience to 0."
        )
    frozen = all(is_frozen(exit_name(block)) for block in config.exits)
    if not frozen and not any(isinstance(term, AtExits) for term in terms.values()):
        raise ValueError(
            f"stage {name!r} has early exits after blocks {config.exits}, and no term trains them. "
            "Give one, for example terms={'exits': AtExits(term=HardLabels())}, or freeze them: "
            "freeze=('exit_*',)."
        )


def check_objective(
    stage: Any, student: families.Config, teacher: families.Config | None, rows: Rows
) -> None:
    """Trace the objective on the shapes of one batch: layer maps, widths, attention, frozen names.

    With stored targets (`stage.labels`) only the student's own parameters are looked at.

    Raises:
      ValueError: as terms and optimiser say.
    """
    model = families.build(student)
    params = jax.eval_shape(model.arrange, model.shapes)
    if stage.labels:
        stage.optimiser.build(params, stage.steps, stage.freeze)
        return
    terms = objective.at(stage.terms or terms_of_data(rows), 0)
    batch = next(iter(rows.batches("validation", stage.batch_size, stage.batch_size)))
    teacher_outputs = None
    if teacher is not None:
        teaching = families.build(teacher)
        teacher_params = jax.eval_shape(teaching.arrange, teaching.shapes)
        run = functools.partial(forward, teaching)
        teacher_outputs = jax.eval_shape(run, teacher_params, batch)
    try:
        outputs = jax.eval_shape(functools.partial(forward, model), params, batch)
        own = jax.eval_shape(lambda s, t: objective.init(terms, 0, s, t), outputs, teacher_outputs)
        stage.optimiser.build(params | ({"terms": own} if own else {}), stage.steps, stage.freeze)

        def loss(own: Any, outputs: Any, teacher_outputs: Any, batch: Any) -> Any:
            counts = objective.counts(terms, batch)
            return objective.loss(
                terms, own, outputs, teacher_outputs, batch, counts, chunk=stage.chunk
            )

        jax.eval_shape(loss, own, outputs, teacher_outputs, batch)
    except (TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"the terms {', '.join(terms)} cannot be computed for a {student.family} student of "
            f"width {student.width}"
            + (f" and a {teacher.family} teacher of width {teacher.width}" if teacher else "")
            + f": {error}"
        ) from error
