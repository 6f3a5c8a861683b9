"""What a training needs, from its compiled step and a few of its steps; nothing is trained."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxkd.checkpoint.layerwise import nbytes
from jaxkd.core.batch import Batch
from jaxkd.core.tree import filled, parameter_count
from jaxkd.data.rows.base import Rows
from jaxkd.distil import objective
from jaxkd.distil.step import initial_state
from jaxkd.models import families
from jaxkd.models.quantised import quantise
from jaxkd.stages.fit import disk_needed, term_params, training_step
from jaxkd.train import parallel

TIMED_STEPS = 3  # after one that compiles
LOOKED_AT = 16  # batches, whose mean and largest size stand for all


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of a training; memory in bytes, on each device."""

    parameters: int  # of the model that learns
    weights: int  # of student and teacher
    optimiser: int  # the optimiser's state
    activations: int  # what the compiled step holds besides, gradients too: XLA's own number
    disk: int  # bytes of checkpoints, at most
    seconds: float  # of a step, the mean over batches
    steps: int  # at most

    @property
    def memory(self) -> int:
        return self.weights + self.optimiser + self.activations


def training_cost(
    stage: Any,
    config: families.Config,
    teacher_config: families.Config | None,
    terms: objective.Terms,
    rows: Rows,
    seed: int,
) -> Cost:
    """The cost of a `Train` stage, measured on these devices with parameters of no meaning.

    The largest of the first batches is compiled and timed; a teacher runs in every step, even if
    its outputs will be stored.
    """
    devices = 1 if stage.parallel == "jitted" else jax.device_count() // stage.tensor
    run_step, place = parallel.strategy(stage.parallel, stage.tensor)
    model = families.build(config)
    params = model.arrange(filled(model.shapes))
    teacher, teacher_params = None, None
    if teacher_config is not None:
        teacher = families.build(teacher_config)
        whole = filled(teacher.shapes)
        if stage.teacher_dtype != "float32":
            whole = quantise(whole, stage.teacher_dtype)
        teacher_params = teacher.arrange(whole)
    feed = rows.for_model(config).training(
        seed=seed, batch_size=stage.batch_size, masking=stage.masking
    )
    steps = stage.steps_over(len(rows.splits["train"]))
    batches = [feed[i] for i in range(min(LOOKED_AT, steps))]
    tokens = [_tokens(batch) for batch in batches]
    largest = batches[int(np.argmax(tokens))]
    own = term_params(terms, seed, (model, params), (teacher, teacher_params), [largest])
    params = params | ({"terms": filled(jax.eval_shape(lambda: own))} if own else {})
    optimiser = stage.optimiser.build(params, steps, stage.freeze)
    step = training_step(stage, seed, rows, config, terms, optimiser, teacher)
    begin = functools.partial(initial_state, optimiser=optimiser)
    part = jax.tree.map(lambda x: x[: x.shape[0] // devices], largest)
    compiled = (
        jax.jit(functools.partial(step, axis=None), donate_argnums=0)
        .lower(jax.eval_shape(begin, params), teacher_params, part)
        .compile()
    )
    analysis = compiled.memory_analysis()
    state_bytes = nbytes(jax.eval_shape(begin, params).optimiser)
    weights = nbytes(params) + nbytes(teacher_params)
    sharded = devices if stage.parallel == "sharded" or jax.process_count() > 1 else 1
    state, teacher_params = place(begin(place(params))), place(teacher_params)
    running, seconds = run_step(step), 0.0
    for number in range(1 + TIMED_STEPS):
        began = time.perf_counter()
        state, metrics = running(state, teacher_params, largest)
        jax.block_until_ready((state, metrics))
        seconds += time.perf_counter() - began if number else 0.0
    return Cost(
        parameters=parameter_count(params),
        weights=weights // sharded,
        optimiser=state_bytes // sharded,
        activations=analysis.temp_size_in_bytes if analysis is not None else 0,
        disk=disk_needed(params),
        seconds=seconds / TIMED_STEPS * float(np.mean(tokens) / max(tokens)),
        steps=steps,
    )


def of_all(costs: Sequence[Cost], times: int = 1) -> Cost:
    """Of trainings one after another, each `times` times: memory is that of the largest."""
    steps = times * sum(cost.steps for cost in costs)
    return dataclasses.replace(
        max(costs, key=lambda cost: cost.memory),
        disk=times * sum(cost.disk for cost in costs),
        seconds=times * sum(cost.seconds * cost.steps for cost in costs) / steps,
        steps=steps,
    )


def _tokens(batch: Batch) -> int:
    return batch.tokens.size + (0 if batch.decoder_tokens is None else batch.decoder_tokens.size)
