"""What a training needs, from its compiled step and a few of its steps; nothing is learned."""

import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxkd.checkpoint.layerwise import nbytes
from jaxkd.core.batch import Batch
from jaxkd.core.random import numpy_stream
from jaxkd.core.tree import filled, parameter_count
from jaxkd.data.rows.base import Rows
from jaxkd.distil import objective
from jaxkd.distil.step import initial_state
from jaxkd.models import families
from jaxkd.models.quantised import quantise, round_kernels
from jaxkd.stages.fit import term_params, training_step
from jaxkd.train import parallel

TIMED_STEPS = 3  # after one that compiles
TIMED_RANDOM_STEPS = 10  # where some steps sample, or skip blocks
LOOKED_AT = 16  # batches, whose mean size the minutes are of


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of a training; memory in bytes, on each device."""

    parameters: int  # of the model that learns
    weights: int  # of student and teacher
    optimiser: int  # the optimiser's state
    activations: int  # what the compiled step holds besides, gradients too: XLA's own number
    checkpoint: int  # bytes of a checkpoint
    disk: int  # bytes of the checkpoints that stay
    seconds: float  # of a step, the mean over batches; nan: it was too large to be run
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
    free: int | None = None,
) -> Cost:
    """The cost of a `Train` stage on these devices, with parameters that are all the same number.

    Memory is that of the batch of the longest rows. Steps are timed unless they would not fit.

    Args:
      free: bytes of memory on each device; None: it is not known.
    """
    run_step, place = parallel.strategy(stage.parallel, stage.tensor)
    model, rows = families.build(config), rows.for_model(config)
    params = model.arrange(filled(model.shapes))
    parameters = parameter_count(params)
    teacher, teacher_params = None, None
    if teacher_config is not None:
        teacher = families.build(teacher_config)
        whole = filled(teacher.shapes)
        if stage.teacher_dtype != "float32":
            whole = quantise(whole, stage.teacher_dtype)
        teacher_params = round_kernels(teacher.arrange(whole), teacher_config.dtype)
    steps = stage.steps_over(len(rows.splits["train"]))
    largest = _longest(stage, rows, seed)
    own = term_params(terms, seed, (model, params), (teacher, teacher_params), [largest])
    params = params | ({"terms": filled(jax.eval_shape(lambda: own))} if own else {})
    optimiser = stage.optimiser.build(params, steps, stage.freeze)
    begin = functools.partial(initial_state, optimiser=optimiser)
    shapes = jax.eval_shape(begin, params)
    checkpoint = nbytes((shapes.params, shapes.optimiser))
    cost = Cost(
        parameters=parameters,
        weights=nbytes((params, teacher_params)),
        optimiser=nbytes(shapes.optimiser),
        activations=0,
        checkpoint=checkpoint,
        disk=2 * checkpoint + (nbytes(params) if stage.patience else 0),
        seconds=math.nan,
        steps=steps,
    )
    shards = jax.device_count() if run_step is parallel.sharded or stage.tensor > 1 else 1
    if free is not None and cost.memory / shards > free:
        return cost
    state, teacher_params = place(begin(place(params))), place(teacher_params)
    step = run_step(training_step(stage, seed, rows, config, terms, optimiser, teacher))
    analysis = step.lower(state, teacher_params, largest).compile().memory_analysis()
    cost = dataclasses.replace(
        cost,
        weights=_on_a_device((state.params, teacher_params)),
        optimiser=_on_a_device(state.optimiser),
        activations=0 if analysis is None else analysis.temp_size_in_bytes,
    )
    if free is not None and cost.memory > free:
        return cost
    feed = rows.training(seed=seed, batch_size=stage.batch_size, masking=stage.masking)
    tokens = np.mean([_tokens(feed[i]) for i in range(min(LOOKED_AT, steps))])
    random = stage.on_policy.share or stage.layer_drop
    timed, seconds = TIMED_RANDOM_STEPS if random else TIMED_STEPS, 0.0
    for number in range(1 + timed):
        began = time.perf_counter()
        state, metrics = step(state, teacher_params, largest)
        jax.block_until_ready((state, metrics))
        seconds += time.perf_counter() - began if number else 0.0
    return dataclasses.replace(cost, seconds=seconds / timed * float(tokens) / _tokens(largest))


def of_all(costs: Sequence[Cost], times: int = 1) -> Cost:
    """Of trainings one after another, each `times` times: memory is that of the largest."""
    steps = times * sum(cost.steps for cost in costs)
    return dataclasses.replace(
        max(costs, key=lambda cost: cost.memory),
        disk=times * sum(cost.disk for cost in costs),
        seconds=times * sum(cost.seconds * cost.steps for cost in costs) / steps,
        steps=steps,
    )


def _longest(stage: Any, rows: Rows, seed: int) -> Batch:
    """A batch of the longest rows of the training split."""
    train = rows.splits["train"]
    lengths = rows.sort_keys(train)
    order = np.arange(len(train)) if lengths is None else np.argsort(-lengths, kind="stable")
    chosen = np.resize(order[: stage.batch_size], stage.batch_size)
    return rows.draw(train[np.sort(chosen)], numpy_stream(seed, "longest", 0), stage.masking)


def _on_a_device(tree: Any) -> int:
    """Bytes of an array, or of its part, on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _tokens(batch: Batch) -> int:
    return batch.tokens.size + (0 if batch.decoder_tokens is None else batch.decoder_tokens.size)
