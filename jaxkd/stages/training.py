"""What teacher training and distillation share: steps, optimiser, resuming, checkpoints."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import jax

from jaxkd.checkpoint import layerwise
from jaxkd.checkpoint.series import Series, check_space
from jaxkd.core.batch import Batch
from jaxkd.data.rows.feed import Recall
from jaxkd.data.rows.masking import Masking
from jaxkd.data.rows.text import Rows
from jaxkd.distil import objective
from jaxkd.distil.on_policy import OnPolicy, mixer
from jaxkd.distil.step import State, initial_state, make_step
from jaxkd.distil.teacher import dequantise
from jaxkd.evaluate.predictions import Evaluate
from jaxkd.hub import folder as hub
from jaxkd.models import decoder, families
from jaxkd.models.model import Model, Params, forward
from jaxkd.models.stack import unstack
from jaxkd.runs.experiment import Workspace
from jaxkd.runtime import hosts
from jaxkd.stages import tokenizer
from jaxkd.stages.targets import with_targets_of
from jaxkd.tasks.task import evaluator, task_for
from jaxkd.tasks.task import terms_of_data as of_data  # noqa: F401
from jaxkd.train import flops, loop, parallel
from jaxkd.train.log import MetricLog
from jaxkd.train.optimiser import AdamW
from jaxkd.train.profile import Profiled


@dataclasses.dataclass
class Training:
    """How long, how fast, on how much at a time."""

    steps: int = 1000  # optimiser updates, at most
    batch_size: int = 16  # rows an update, over all devices
    accumulate: int = 1  # micro-batches an update, to save memory
    optimiser: AdamW = dataclasses.field(default_factory=AdamW)
    masking: Masking = dataclasses.field(default_factory=Masking)
    freeze: tuple[str, ...] = ()  # patterns of parameter names that do not learn
    log_every: int = 20
    save_every: int = 200
    evaluate_every: int = 200
    evaluate_rows: int = 256  # of the validation split, while training; 0: all
    parallel: str = "auto"  # jitted, pmapped, sharded; auto: pmapped on several devices
    tensor: int = 1  # sharded: devices that share each block and the vocabulary
    chunk: int = 0  # positions whose logits exist at once, to save memory; 0: all
    patience: int = 0  # stop after so many evaluations without a better loss, and keep the best
    targets: str = ""  # Choose stage whose targets are learned; empty: the references

    reads_text: ClassVar[bool] = True
    on_all_hosts: ClassVar[bool] = True

    def check(self) -> None:
        parallel.way(self.parallel, self.tensor)
        devices = 1 if self.parallel == "jitted" else jax.device_count() // self.tensor
        parallel.check_batch(self.batch_size, self.accumulate, devices)
        self.optimiser.check()
        self.masking.check()
        if self.chunk < 0:
            raise ValueError(f"chunk is {self.chunk}; positions at a time, or 0 for all.")
        for name in ("steps", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")

    def chosen(self) -> tuple[str, ...]:
        """The stage whose targets are learned, for `inputs`."""
        return (self.targets,) if self.targets else ()

    def check_among(self, earlier: dict[str, Any], data: Any) -> None:
        if self.targets and not getattr(earlier[self.targets], "gives_targets", False):
            raise ValueError(f"targets={self.targets!r}: that is no Choose stage.")

    def fit(
        self,
        workspace: Workspace,
        config: families.Config,
        params: Params,
        terms: objective.Terms,
        *,
        teacher: tuple[families.Config, Params] | None = None,
        layer_drop: float = 0.0,
        recall: Recall | None = None,
        on_policy: OnPolicy | None = None,
    ) -> dict[str, Any]:
        """Train from `params`, or go on from the last good checkpoint; save the last state.

        Parameters on the host are device_put_sharded where the step wants them, and nowhere else.
        With `recall` what the teacher says comes from a store; of `teacher` then only its head and
        token embedding are looked at, if it is given at all.
        """
        run_step, place_arrays = parallel.way(self.parallel, self.tensor)
        model = families.build(config)
        families.check_shapes(model, params, f"stage {workspace.name!r}")
        taught, teacher_params = None, None
        if teacher is not None:
            taught = families.build(teacher[0])
            its = teacher[1] if recall else taught.arrange(teacher[1])
            teacher_params = place_arrays(its)
        params = model.arrange(params)
        batches = workspace.rows.batches("validation", self.batch_size, self.evaluate_rows)
        own = _of_terms(terms, workspace.seed, (model, params), (taught, teacher_params), batches)
        if own:
            params = params | {"terms": own}
        optimiser = self.optimiser.build(params, self.steps, self.freeze)
        step = make_step(
            model,
            terms,
            optimiser,
            seed=workspace.seed,
            teacher=taught,
            layer_drop=layer_drop,
            dropout=max(config.dropout, config.attention_dropout) > 0,
            accumulate=self.accumulate,
            chunk=self.chunk,
            mix=_mix(on_policy, model, config, workspace),
        )
        series = Series(workspace.folder / "checkpoint", warn=workspace.display.say)
        best = Series(workspace.folder / "best", keep=1, warn=workspace.display.say)
        check_space(series.folder, 4 * 3 * layerwise.nbytes(params))
        log = MetricLog(
            workspace.folder / "metrics.jsonl", workspace.tensorboard, silent=not hosts.first()
        )
        described = families.describe(config)

        begin = functools.partial(initial_state, optimiser=optimiser)
        state, resumed = _resume(series, jax.eval_shape(begin, params), model)
        hosts.check_same(str(resumed), f"the step at which {workspace.name!r} goes on")
        # Placed first: what the optimiser keeps, twice the model and more, begins where it stays.
        state = place_arrays(begin(place_arrays(params)) if state is None else state)
        log.rewind(resumed)
        if resumed:
            workspace.display.say(f"{workspace.name}: going on from step {resumed}")
        workspace.display.start(workspace.name, self.steps, resumed)

        asked = None if recall else taught  # a store knows the training split alone
        measure = measure_of(workspace.rows, model, asked, chunk=self.chunk)

        def evaluate(done: int, state: State) -> Mapping[str, float]:
            return measure(state.params, teacher_params, batches)

        def tell(done: int, split: str, values: Mapping[str, float]) -> None:
            log.write(done, split, values)
            workspace.display.step(done, values)

        def save(done: int, state: State, position: dict[str, Any]) -> None:
            state = hosts.gathered(state)
            if hosts.first():
                series.save(done, _model_of(state), described, state=_rest_of(state), data=position)

        def improved(done: int, state: State) -> None:
            if not self.patience:
                return
            model_alone = hosts.gathered(_model_of(state))
            if hosts.first():
                best.save(done, model_alone, described)

        plan = loop.Plan(
            self.steps, self.log_every, self.save_every, self.evaluate_every, self.patience
        )
        models = [flops.Part(3, model, params, causal=_is_causal(config), blocks=1 - layer_drop)]
        if asked is not None:
            shapes = jax.eval_shape(dequantise, teacher_params)
            models.append(flops.Part(1, taught, shapes, causal=_is_causal(teacher[0])))
        devices = 1 if self.parallel == "jitted" else jax.device_count()
        hooks = loop.Hooks(
            tell, save, evaluate, improved, hosts.CollectiveFlag(workspace.stopping),
            flops.Needed(models), flops.peak(config.compute, devices),
        )  # fmt: skip
        shown = with_targets_of(workspace, self.targets) if self.targets else workspace.rows
        feed = shown.training(
            seed=workspace.seed, batch_size=self.batch_size, masking=self.masking, recall=recall
        )
        told = [row for row in log.rows() if row["split"] == "validation"]
        # The first host may be about to forget what lies after.
        losses = [row["loss"] for row in told if row["step"] <= resumed]
        compiled = run_step(step)
        if workspace.profile is not None:
            compiled = Profiled(compiled, workspace.profile)
        try:
            state = loop.run(
                compiled,
                state,
                teacher_params,
                feed,
                plan,
                hooks,
                done=resumed,
                losses=losses,
            )
        except loop.NotFinite as error:
            last = series.latest()
            raise loop.NotFinite(
                f"{workspace.name}: {error} The last good state is {last or 'the initial one'}. Lower "
                f"config.stages.{workspace.name}.optimiser.learning_rate, or lengthen its warmup."
            ) from None
        finally:
            if workspace.profile is not None:
                compiled.close()
            log.close()
            workspace.display.stop()
        return {"steps": int(state.step), "resumed_at": resumed}


def measure_of(rows: Rows, model: Model, teacher: Model | None, *, chunk: int = 0) -> Evaluate:
    """How a model of these rows is measured."""
    return evaluator(task_for(rows), model, teacher, chunk=chunk)


def _mix(how: OnPolicy | None, model: Model, config: families.Config, workspace: Workspace) -> Any:
    if how is None or not how.share:
        return None
    known, suppress_tokens = workspace.rows.tokenizer, suppressed_tokens(workspace.rows, config)
    return mixer(
        model,
        config,
        how,
        seed=workspace.seed,
        end=known.sep,
        pad=known.pad,
        suppress_tokens=suppress_tokens,
    )


def suppressed_tokens(rows: Rows, config: families.Config) -> tuple[int, ...]:
    """Special tokens but the one that ends a text, and the embedding's rows that are no token's."""
    known = rows.tokenizer
    beyond = range(known.vocab_size, config.vocabulary)
    return tuple(sorted((known.structural_ids - {known.sep}) | set(beyond)))


def _is_causal(config: families.Config) -> bool:
    return isinstance(config, decoder.Config)


def _resume(series: Series, like: State, model: Model) -> tuple[State | None, int]:
    """The last good checkpoint's state, on the host, and its step; None and 0 if there is none.

    Args:
      like: its shapes and dtypes.
    """
    latest = series.latest()
    if latest is None:
        return None, 0
    params, _ = layerwise.load(latest, on_host=True)
    families.check_shapes(model, params, str(latest))
    kept = layerwise.load_part(latest, "state", _rest_of(like), on_host=True)
    own = {"terms": kept["terms"]} if "terms" in kept else {}
    state = State(kept["step"], model.arrange(params) | own, kept["optimiser"])
    return state, int(kept["step"])


def _model_of(state: State) -> Params:
    """The model's parameters as checkpoints have them: a list of blocks, nothing of the terms'."""
    return unstack({name: part for name, part in state.params.items() if name != "terms"})


def _rest_of(state: State) -> dict[str, Any]:
    """What resuming needs beside the model."""
    own = {"terms": state.params["terms"]} if "terms" in state.params else {}
    return {"step": state.step, "optimiser": state.optimiser} | own


def _of_terms(
    terms: objective.Terms,
    seed: int,
    student: tuple[Model, Params],
    teacher: tuple[Model | None, Params | None],
    batches: Iterable[Batch],
) -> dict[str, Any]:
    """What the objective's terms learn themselves, fresh; {} if nothing."""
    if not any(hasattr(term, "init") for term in terms.values()):
        return {}
    batch = next(iter(batches))
    given = [
        None if model is None else jax.eval_shape(functools.partial(forward, model), params, batch)
        for model, params in (student, teacher)
    ]
    return objective.init(terms, seed, *given)


def open_model(
    name: str, warn: Any = print, *, head: str = "", seed: int = 0
) -> tuple[families.Config, Params]:
    """A model by name, on the host: of a finished stage's folder, a HuggingFace folder, a hub id.

    Args:
      head: the head that is needed. What the source lacks of it is drawn from `seed`, and `warn`
        is told so.
    Raises:
      FileNotFoundError, KeyError, ValueError: as `load_model` and `hub.folder.load` say; for a
        stage that is not finished, or has another head.
    """
    folder = pathlib.Path(name)
    if not _is_stage(folder):
        return hub.load(name, head=head, seed=seed, on_host=True, warn=warn)
    if not (folder / "done.json").is_file():
        raise FileNotFoundError(
            f"{name} is a stage that was cut off: it has no done.json. Let its run finish, then "
            "start again."
        )
    config, params = load_model(folder, warn, on_host=True)
    if head and config.head != head:
        raise ValueError(f"{name} has the head {config.head}; {head} is needed here.")
    return config, params


def depends_on(name: str) -> Any:
    """What changes when the model of that name does: its stage's fingerprint, or its files."""
    folder = pathlib.Path(name)
    if (folder / "done.json").is_file():
        return json.loads((folder / "done.json").read_text())["fingerprint"]
    kinds = (".json", ".safetensors", ".bin")
    files = sorted(file for file in folder.glob("*") if file.suffix in kinds)
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def check_head(name: str, config: families.Config, rows: Rows) -> None:
    """Raise ValueError unless the model predicts what the data asks for."""
    if config.head != rows.head:
        raise ValueError(
            f"stage {name!r}: a {config.family} with the head {config.head} does not predict what "
            f"the data asks for ({type(rows).__name__}): that needs the head {rows.head}."
        )


def check_tokenizer(workspace: Workspace, name: str, config: families.Config) -> None:
    """Raise ValueError unless stage `name`'s model and the data mean the same by every id."""
    wanted = workspace.rows.tokenizer.fast.get_vocab()
    found = tokenizer.vocabulary(workspace.stage_folder(name))
    if found is not None and found != wanted:
        unlike = sum(wanted.get(token) != number for token, number in found.items())
        raise ValueError(
            f"the tokenizer of {name!r} has {len(found)} tokens, {unlike} of them under another id "
            f"or none in that of the text ({workspace.rows.tokenizer.origin}, {len(wanted)} tokens): "
            "its predictions cannot be compared token by token. Give the text the model's own: "
            "--config.data.tokenizer=NAME."
        )
    if config.vocabulary < len(wanted):
        raise ValueError(
            f"{name!r} has {config.vocabulary} token embeddings, the tokenizer of the text has "
            f"{len(wanted)} tokens."
        )


def _is_stage(folder: pathlib.Path) -> bool:
    return (folder / "checkpoint").is_dir() or (folder / "best").is_dir()


def load_model(
    folder: pathlib.Path, warn: Any = print, *, on_host: bool = False
) -> tuple[families.Config, Params]:
    """Config and parameters of a finished stage, shapes checked: its best state, or its last.

    Args:
      on_host: give numpy arrays, for trainings, which place them; else on the default device.
    Raises:
      FileNotFoundError: if it left no whole checkpoint.
    """
    latest = None
    for name in ("best", "checkpoint"):
        latest = latest or Series(folder / name, warn=warn).latest()
    if latest is None:
        raise FileNotFoundError(
            f"{folder} has no whole checkpoint. Delete the folder and start again: the stage is "
            "then run anew."
        )
    params, described = layerwise.load(latest, on_host=on_host)
    config = families.from_description(described)
    families.check_shapes(families.build(config), params, str(latest))
    return config, params
