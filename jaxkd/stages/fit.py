"""One training: build the step, resume from the last checkpoint, run the loop, save the model."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from jaxkd.checkpoint import layerwise
from jaxkd.checkpoint.series import Series, check_space
from jaxkd.core.batch import Batch, check_batch
from jaxkd.data.rows.base import Rows
from jaxkd.data.rows.feed import Recall
from jaxkd.decode.suppressed import suppressed_tokens
from jaxkd.distil import objective
from jaxkd.distil.on_policy import OnPolicy, mixer
from jaxkd.distil.solved import BATCHES, with_solved_matrices
from jaxkd.distil.step import State, Step, initial_state, make_step, model_of, rest_of
from jaxkd.distil.teacher import dequantise, teacher_outputs
from jaxkd.models import decoder, families
from jaxkd.models.config import NO_CLASSIFIER
from jaxkd.models.model import Model, Params, forward
from jaxkd.models.quantised import round_kernels
from jaxkd.runs.experiment import Workspace
from jaxkd.runtime import hosts
from jaxkd.stages.targets import with_targets_of
from jaxkd.stages.task import task_of
from jaxkd.tasks.task import evaluator
from jaxkd.train import flops, loop, parallel
from jaxkd.train.log import MetricLog
from jaxkd.train.profile import Profiled


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A teacher's config and parameters; `stored`: its outputs come from a store.

    Of a stored teacher the head and the token embedding are used, if anything.
    """

    config: families.Config
    params: Params
    stored: bool = False


def fit(
    stage: Any,
    workspace: Workspace,
    config: families.Config,
    params: Params,
    terms: objective.Terms,
    *,
    teacher: Teacher | None = None,
    recall: Recall | None = None,
) -> dict[str, Any]:
    """Train from `params`, or go on from the last good checkpoint; save the last state.

    Args:
      stage: a `Train`, whose fields say how.
      params: arrays on the host, which are placed on the devices where the step wants them.
      recall: gives each batch what a teacher said of it before.
    Returns: numbers for done.json.
    Raises:
      NotFinite: if a loss is not finite; names the step and the last good checkpoint.
    """
    run_step, place_arrays = parallel.strategy(stage.parallel, stage.tensor)
    model = families.build(config)
    families.check_shapes(model, params, f"stage {workspace.name!r}")
    teacher_model, teacher_params = None, None
    if teacher is not None:
        teacher_model = families.build(teacher.config)
        whole = teacher.params if teacher.stored else teacher_model.arrange(teacher.params)
        teacher_params = place_arrays(round_kernels(whole, teacher.config.dtype))
    params = model.arrange(params)
    batches = workspace.rows.for_model(config).batches(
        "validation", stage.batch_size, stage.evaluate_rows
    )
    own = term_params(
        terms, workspace.seed, (model, params), (teacher_model, teacher_params), batches
    )
    if own:
        params = params | {"terms": _solved(
            stage, workspace, config, terms, own, (model, params),
            (teacher_model, teacher_params), recall,
        )}  # fmt: skip
    optimiser = stage.optimiser.build(params, stage.steps, stage.freeze)
    step = training_step(
        stage, workspace.seed, workspace.rows, config, terms, optimiser, teacher_model
    )
    savers = _Savers.of(workspace, config)
    check_space(savers.series.folder, 4 * 3 * layerwise.nbytes(params))
    log = MetricLog(
        workspace.folder / "metrics.jsonl",
        workspace.tensorboard,
        silent=not hosts.first(),
        warn=workspace.display.say,
    )
    begin = functools.partial(initial_state, optimiser=optimiser)
    state, losses = _resume(savers.series, jax.eval_shape(begin, params), model)
    resumed = 0 if state is None else int(state.step)
    hosts.check_same(str(resumed), f"the step at which {workspace.name!r} goes on")
    # Placed first: the optimiser's state, twice the model and more, is created where it stays.
    state = place_arrays(begin(place_arrays(params)) if state is None else state)
    log.rewind(resumed)
    if resumed:
        workspace.display.say(f"{workspace.name}: going on from step {resumed}")
    workspace.display.start(workspace.name, stage.steps, resumed)

    # A store covers the training split alone, so that validation has no teacher then.
    live = None if teacher is None or teacher.stored else teacher_model
    measure = evaluator(task_of(workspace), model, live, chunk=stage.chunk)

    def write_log(done: int, split: str, values: Mapping[str, float]) -> None:
        log.write(done, split, values)
        workspace.display.step(done, values, split=split)

    hooks = loop.Hooks(
        log=write_log,
        save=savers.save,
        evaluate=lambda done, state: measure(state.params, teacher_params, batches),
        improved=savers.save_best if stage.patience else lambda done, state: None,
        stopping=hosts.CollectiveFlag(workspace.stopping),
        needed=_flops(stage, model, config, params, live, teacher, teacher_params),
        peak=flops.peak(config.compute, 1 if stage.parallel == "jitted" else jax.device_count()),
        check=functools.partial(
            check_batch,
            tokens=config.vocabulary,
            targets=0 if config.head in NO_CLASSIFIER else len(config.labels),
        ),
    )
    rows = with_targets_of(workspace, stage.targets) if stage.targets else workspace.rows
    feed = rows.for_model(config).training(
        seed=workspace.seed, batch_size=stage.batch_size, masking=stage.masking, recall=recall
    )
    compiled = run_step(step)
    if workspace.profile is not None:
        compiled = Profiled(compiled, workspace.profile)
    plan = loop.Plan(
        stage.steps, stage.log_every, stage.save_every, stage.evaluate_every, stage.patience
    )
    try:
        state = loop.run(
            compiled, state, teacher_params, feed, plan, hooks, done=resumed, losses=losses
        )
    except loop.NotFinite as error:
        last = savers.series.latest()
        raise loop.NotFinite(
            f"{workspace.name}: {error} The last good state is {last or 'the initial one'}. Lower "
            f"config.stages.{workspace.name}.optimiser.learning_rate, or lengthen its warmup."
        ) from None
    finally:
        if workspace.profile is not None:
            compiled.close()
        log.close()
        workspace.display.stop()
    numbers = {"steps": int(state.step), "resumed_at": resumed}
    return numbers | (savers.note(stage.patience) if stage.patience else {})


def training_step(
    stage: Any,
    seed: int,
    rows: Rows,
    config: families.Config,
    terms: objective.Terms,
    optimiser: Any,  # an optax.GradientTransformation
    teacher: Model | None,
) -> Step:
    """The step of a `Train` stage."""
    model = families.build(config)
    return make_step(
        model,
        terms,
        optimiser,
        seed=seed,
        teacher=teacher,
        layer_drop=stage.layer_drop,
        dropout=config.drops,
        accumulate=stage.accumulate,
        chunk=stage.chunk,
        mix=_mix(stage.on_policy, model, config, seed, rows),
        freeze=stage.freeze,
    )


@dataclasses.dataclass(frozen=True)
class _Savers:
    """Where a training's states go."""

    series: Series
    best: Series
    description: dict[str, Any]

    @classmethod
    def of(cls, workspace: Workspace, config: families.Config) -> "_Savers":
        say = workspace.display.say
        return cls(
            Series(workspace.folder / "checkpoint", warn=say),
            Series(workspace.folder / "best", keep=1, warn=say),
            families.describe(config),
        )

    def save(self, done: int, state: State, data: dict[str, Any]) -> None:
        state = hosts.gathered(state)
        if hosts.first():
            self.series.save(
                done, model_of(state), self.description, state=rest_of(state), data=data
            )

    def save_best(self, done: int, state: State) -> None:
        params = hosts.gathered(model_of(state))
        if hosts.first():
            self.best.save(done, params, self.description)

    def note(self, patience: int) -> dict[str, Any]:
        """What the results say of a model that was chosen by its validation loss."""
        newest = self.best.newest()
        if newest is None:
            return {}
        step = int(newest.name)
        return {
            "best_step": step,
            "note": (
                f"patience={patience}: the model kept is that of step {step}, which had the lowest "
                "validation loss; its validation loss was chosen on that split."
            ),
        }


def _flops(
    stage: Any,
    model: Model,
    config: families.Config,
    params: Params,
    teacher_model: Model | None,
    teacher: Teacher | None,
    teacher_params: Params | None,
) -> Callable[[Batch], float]:
    """FLOPs of a step by its batch."""
    parts = [flops.Part(3, model, params, causal=_is_causal(config), blocks=1 - stage.layer_drop)]
    if teacher_model is not None:
        shapes = jax.eval_shape(dequantise, teacher_params)
        parts.append(flops.Part(1, teacher_model, shapes, causal=_is_causal(teacher.config)))
    return flops.Needed(parts)


def _is_causal(config: families.Config) -> bool:
    return isinstance(config, decoder.Config)


def _mix(how: OnPolicy, model: Model, config: families.Config, seed: int, rows: Rows) -> Any:
    if not how.share:
        return None
    tokenizer = rows.tokenizer
    return mixer(
        model,
        config,
        how,
        seed=seed,
        end=tokenizer.sep,
        pad=tokenizer.pad,
        suppress_tokens=suppressed_tokens(
            tokenizer, config.vocabulary, beginning=rows.target_beginning
        ),
    )


def _resume(series: Series, like: State, model: Model) -> tuple[State | None, list[float]]:
    """The last good checkpoint's state, on the host, and the validation losses before it.

    Args:
      like: its shapes and dtypes.
    """
    latest = series.latest()
    if latest is None:
        return None, []
    params, _ = layerwise.load(latest, on_host=True)
    families.check_shapes(model, params, str(latest))
    rest = layerwise.load_part(latest, "state", rest_of(like), on_host=True)
    term_params = {"terms": rest["terms"]} if "terms" in rest else {}
    state = State(rest["step"], model.arrange(params) | term_params, rest["optimiser"])
    return state, list(layerwise.load_json(latest, "data").get("validation_losses", []))


def _solved(
    stage: Any,
    workspace: Workspace,
    config: families.Config,
    terms: objective.Terms,
    own: dict[str, Any],
    student: tuple[Model, Params],
    teacher: tuple[Model | None, Params | None],
    recall: Recall | None,
) -> dict[str, Any]:
    """The terms' parameters, matrices with `solve` fitted to the first training batches."""
    feed = workspace.rows.for_model(config).training(
        seed=workspace.seed, batch_size=stage.batch_size, masking=stage.masking, recall=recall
    )

    def outputs(params: Any, batch: Batch) -> tuple[Any, Any]:
        student_params, teacher_params = params
        return forward(student[0], student_params, batch), teacher_outputs(
            teacher[0], teacher_params, batch
        )

    both, batches = (student[1], teacher[1]), (feed[i] for i in range(BATCHES))
    return with_solved_matrices(terms, own, outputs, both, batches)


def term_params(
    terms: objective.Terms,
    seed: int,
    student: tuple[Model, Params],
    teacher: tuple[Model | None, Params | None],
    batches: Iterable[Batch],
) -> dict[str, Any]:
    """Initial parameters of the objective's own; {} if its terms learn nothing."""
    if not any(hasattr(term, "init") for term in terms.values()):
        return {}
    batch = next(iter(batches))
    outputs = [
        None if model is None else jax.eval_shape(functools.partial(forward, model), params, batch)
        for model, params in (student, teacher)
    ]
    return objective.init(terms, seed, *outputs)
