"""Random weights: a model of a given shape, or of another stage's shape with fewer blocks."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxkd.core.ranges import field
from jaxkd.data.rows.base import Rows
from jaxkd.models import families
from jaxkd.models.model import Params
from jaxkd.runs.experiment import Workspace
from jaxkd.stages import tokenizer
from jaxkd.stages.models import load_model, save_model


@dataclasses.dataclass
class Initialise:
    """A model with random weights; vocabulary, classes and special tokens follow the data."""

    model: families.Config | None = None  # the shape
    like: str = ""  # stage whose shape is taken instead, with `layers` blocks
    layers: int = field(0, at_least=0)  # blocks of a model like another; 0: as many
    fit: bool = True  # vocabulary, classes and tokenizer of the data, where there is data
    unigram_bias: bool = True  # start the output bias at the log frequency of each token
    stream: str = ""  # name of the random stream; empty: the stage's own name

    def inputs(self) -> tuple[str, ...]:
        return (self.like,) if self.like else ()

    def check(self) -> None:
        if bool(self.like) == (self.model is not None):
            shape = None if self.model is None else type(self.model).__name__
            raise ValueError(
                f"like is {self.like!r} and model {shape}: give one of the two, a stage whose "
                "shape is taken, or a shape."
            )
        if self.layers and not self.like:
            raise ValueError(
                f"layers is {self.layers} and like is empty: a shape has model.layers blocks."
            )
        if self.model is not None:
            self.model.check()

    def plan(self, configs: dict[str, families.Config | None], rows: Rows | None) -> Any:
        """The config of the model this stage will leave."""
        shape = self.model if self.model is not None else configs.get(self.like)
        return None if shape is None else self._config(shape, rows)

    def check_config(self, configs: dict[str, families.Config | None], rows: Rows | None) -> None:
        """Raise ValueError if the shape does not fit the data."""
        config = self.plan(configs, rows)
        if config is not None:
            config.check()

    def run(self, workspace: Workspace) -> dict[str, Any]:
        shape, rows = self.model, workspace.rows
        if shape is None:
            shape, _ = load_model(
                workspace.stage_folder(self.like), workspace.display.say, on_host=True
            )
        config = self._config(shape, rows)
        params = families.build(config).init(workspace.seed, self.stream or workspace.name)
        if rows is not None and self.fit:
            tokenizer.write(rows.tokenizer, workspace.folder)
            if self.unigram_bias:
                params = with_unigram_bias(params, rows)
        return save_model(workspace, config, params)

    def _config(self, shape: families.Config, rows: Rows | None) -> families.Config:
        if self.like and self.layers:
            shape = families.with_layers(shape, self.layers)
        if rows is None or not self.fit:
            return shape
        changes = dict(rows.config_overrides)
        if rows.form == "classification" and rows.labels:
            changes.setdefault("labels", tuple(rows.labels))
        if rows.form == "regression":
            changes["labels"] = shape.labels[:1]
        return dataclasses.replace(shape, **changes)


def with_unigram_bias(params: Params, rows: Rows) -> Params:
    """The same model with its output bias at the log frequency of each token, if it has one."""
    if "bias" not in params["head"]:
        return params
    counts = rows.vocabulary.counts + 1.0
    bias = jnp.asarray(jnp.log(counts / counts.sum()), jnp.float32)
    bias = bias.reshape(params["head"]["bias"].shape)  # Marian's has a row axis
    return params | {"head": params["head"] | {"bias": bias}}
