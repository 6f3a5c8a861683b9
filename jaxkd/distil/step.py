"""The one training step, for a teacher and for a student, on one device and on many.

A pure function `step(state, teacher, batch, axis)`; `train/parallel.py` jits, pmaps or shards it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxkd.core.batch import Batch, check_batch
from jaxkd.core.mean import Mean
from jaxkd.core.names import matches
from jaxkd.core.random import stream
from jaxkd.core.tree import map_named
from jaxkd.distil import objective
from jaxkd.distil.on_policy import Mix
from jaxkd.distil.teacher import teacher_outputs
from jaxkd.models.model import Model, Params, forward, keep_blocks
from jaxkd.models.stack import unstack


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that training changes."""

    step: Any  # scalar int32: updates made so far
    params: Params
    optimiser: Any  # optax state


def initial_state(params: Params, optimiser: optax.GradientTransformation) -> State:
    """The state before the first step.

    The parameters are copied: a step donates its state's buffers, and a pruned student shares them
    with its teacher.
    """

    def start(params: Params) -> State:
        params = jax.tree.map(jnp.copy, params)
        return State(jnp.zeros((), jnp.int32), params, optimiser.init(params))

    # One program: array by array, each shape would be a compilation. Of arrays over several
    # devices XLA would not keep the zeros apart.
    sharded = any(_devices(leaf) > 1 for leaf in jax.tree.leaves(params))
    return start(params) if sharded else jax.jit(start)(params)


def _devices(leaf: Any) -> int:
    whole = isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array)
    return 1 if whole else len(leaf.sharding.device_set)


def model_of(state: State) -> Params:
    """The model's parameters as checkpoints have them: a list of blocks, without the terms' own."""
    return unstack({name: part for name, part in state.params.items() if name != "terms"})


def rest_of(state: State) -> dict[str, Any]:
    """What resuming needs besides the model: step, optimiser, the terms' own parameters."""
    term_params = {"terms": state.params["terms"]} if "terms" in state.params else {}
    return {"step": state.step, "optimiser": state.optimiser} | term_params


Step = Callable[[State, Params | None, Batch, str | None], tuple[State, dict[str, Mean]]]


def make_step(
    model: Model,
    terms: objective.Terms,
    optimiser: optax.GradientTransformation,
    *,
    seed: int,
    teacher: Model | None = None,
    layer_drop: float = 0.0,
    dropout: bool = False,
    accumulate: int = 1,
    chunk: int = 0,
    mix: Mix | None = None,
    freeze: Sequence[str] = (),
) -> Step:
    """A step minimising `terms`, its result independent of how the batch is split.

    Counts are summed over devices first; each device and each of the `accumulate` micro-batches
    then adds weight * total / count of the whole batch, and gradients are summed. The teacher runs
    without dropout and LayerDrop, under `stop_gradient`. LayerDrop draws once a step, for all
    devices and micro-batches alike. What terms learn themselves is `params["terms"]`.

    Args:
      chunk: positions whose logits exist at once, 0 for all (losses/fused.py).
      mix: what is done to the batch first (on_policy.py).
      freeze: patterns of the parameters that the optimiser does not change: they are not
        differentiated, and have no part in `grad_norm`.
    Raises (when the step is traced):
      ValueError: for a batch without targets or target_mask, or with arrays of unequal shapes.
    Returns: the step; its metrics are a Mean for each term, `loss` (their weighted sum) and
    `grad_norm` (before clipping), with `mix` also `on_policy`, the share of batches it changed.
    """

    def unless_frozen(name: str, leaf: Any) -> Any:
        return jax.lax.stop_gradient(leaf) if matches(name, freeze) else leaf

    def step(
        state: State, teacher_params: Params | None, batch: Batch, axis: str | None = None
    ) -> tuple[State, dict[str, Mean]]:
        check_batch(batch)

        def over_devices(tree: Any) -> Any:
            return tree if axis is None else jax.lax.psum(tree, axis)

        if mix is not None:
            batch, sampled_share = mix(state.params, batch, state.step, axis)
        now = objective.at(terms, state.step)
        count = over_devices(objective.counts(now, batch))
        keep = keep_blocks(seed, state.step, model.depth, layer_drop) if layer_drop else None
        key = stream(seed, "dropout", state.step, axis) if dropout else None

        def part_loss(params: Params, part: Batch, index: Any) -> tuple[Any, dict[str, Any]]:
            noise = None if key is None else jax.random.fold_in(key, index)
            params = map_named(unless_frozen, params)
            student = forward(model, params, part, keep=keep, dropout=noise)
            outputs = teacher_outputs(teacher, teacher_params, part)
            own = params.get("terms", {})
            return objective.loss(now, own, student, outputs, part, count, chunk=chunk)

        part_gradient = jax.grad(part_loss, has_aux=True)
        if accumulate == 1:
            gradient, total = part_gradient(state.params, batch, 0)
        else:

            def add(sums: Any, indexed: Any) -> tuple[Any, None]:
                index, part = indexed
                return jax.tree.map(jnp.add, sums, part_gradient(state.params, part, index)), None

            parts = (jnp.arange(accumulate), batch.split(accumulate))
            zeros = jax.tree.map(
                jnp.zeros_like, (state.params, {name: jnp.zeros(()) for name in terms})
            )
            (gradient, total), _ = jax.lax.scan(add, zeros, parts)
        gradient, total = over_devices((gradient, total))
        updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        one = jnp.ones(())
        metrics = {name: Mean(total[name], count[name]) for name in terms}
        loss = sum(objective.share(now[name], count[name]) * total[name] for name in terms)
        metrics["loss"] = Mean(loss, one)
        metrics["grad_norm"] = Mean(optax.tree.norm(gradient), one)
        if mix is not None:
            metrics["on_policy"] = Mean(sampled_share, one)
        return State(state.step + 1, params, optimiser_state), metrics

    return step
