"""Every model family by name: from a stored description to a model that can run."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from jaxkd.core.names import did_you_mean
from jaxkd.core.tree import named
from jaxkd.models import (
    albert,
    bart,
    bert,
    config,
    decoder,
    distilbert,
    gpt2,
    llama,
    lstm,
    marian,
    modernbert,
    qwen2,
    qwen2_moe,
    qwen3,
    roberta,
    seq2seq,
    t5,
)
from jaxkd.models import axes as axes_table
from jaxkd.models.exits import add_exits
from jaxkd.models.model import Model, Params

Config = config.Config  # the base of all families' configs
FAMILIES: dict[str, tuple[type[Config], Callable[[Any], Model]]] = {}  # config, builder


def register(
    config: type[Config],
    build: Callable[[Any], Model],
    axes: Mapping[str, tuple[str, ...]] | None = None,
) -> None:
    """Make a family known under its name, `config.family`; it may live anywhere.

    Args:
      build: from a config to a `Model`.
      axes: rows for parameters whose names no other family has; see models/axes.py.
    Raises:
      ValueError: if the config has no name of its own, or another family has it.
    """
    name = vars(config).get("family", "")
    if not name:
        raise ValueError(
            f"{config.__module__}.{config.__qualname__} has no name of its own: give it "
            'family: ClassVar[str] = "NAME".'
        )
    known = FAMILIES.get(name, (config, build))[0]
    if known is not config:
        raise ValueError(f"family {name!r} is {known.__module__}.{known.__qualname__} already.")
    axes_table.add(axes or {})
    FAMILIES[name] = (config, build)


for _module, _build in (
    (bert, bert.build),
    (distilbert, bert.build),
    (roberta, bert.build),
    (albert, bert.build),
    (modernbert, modernbert.build),
    (gpt2, decoder.build),
    (llama, decoder.build),
    (qwen2, decoder.build),
    (qwen3, decoder.build),
    (qwen2_moe, decoder.build),
    (marian, seq2seq.build),
    (bart, seq2seq.build),
    (t5, t5.build),
    (lstm, lstm.build),
):
    register(_module.Config, _build)


def describe(config: Config) -> dict[str, Any]:
    """A config as JSON: {"family": ..., "config": {...}}."""
    kind, _ = FAMILIES.get(getattr(config, "family", ""), (None, None))
    if kind is None or type(config) is not kind:
        names = ", ".join(FAMILIES)
        raise TypeError(f"{type(config).__name__} is no model config. Families: {names}.")
    fields = dataclasses.asdict(config).items()
    stored = {k: list(v) if isinstance(v, tuple) else v for k, v in fields}
    return {"family": config.family, "config": stored}


def from_description(description: dict[str, Any]) -> Config:
    """The config that `describe` wrote."""
    family = description["family"]
    if family not in FAMILIES:
        raise ValueError(f"unknown model family {family!r}. {did_you_mean(family, FAMILIES)}")
    kind, stored = FAMILIES[family][0], description["config"]
    known = {field.name for field in dataclasses.fields(kind)}
    for name in stored.keys() - known:
        raise ValueError(f"{family} has no field {name!r}. {did_you_mean(name, known)}")
    return _from_fields(kind, stored)


def _from_fields(kind: type[Config], stored: Mapping[str, Any]) -> Config:
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()})


def build(config: Config) -> Model:
    """The model of a config; raises ValueError for a shape that cannot be built."""
    description = describe(config)
    builder = FAMILIES[description["family"]][1]
    return _build(builder, type(config), json.dumps(description["config"]))


@functools.lru_cache(maxsize=64)  # with a model its shapes are kept, which take long to trace
def _build(builder: Callable[[Any], Model], kind: type[Config], stored: str) -> Model:
    # A config of its own: the caller's may change later.
    config = _from_fields(kind, json.loads(stored))
    model = builder(config)
    return add_exits(model, config) if config.exits or config.head_reads == "mean" else model


def with_layers(config: Config, layers: int) -> Config:
    """The same shape with another number of blocks, the first ones where blocks differ.

    >>> with_layers(bert.Config(layers=12), 6).layers
    6
    """
    return config.keep(range(layers))


def check_shapes(model: Model, params: Params, origin: str) -> None:
    """Raise ValueError, naming parameters, if `params` are not those of `model`."""
    needed = {k: v.shape for k, v in named(model.shapes).items()}
    shapes = {k: v.shape for k, v in named(params).items()}
    wrong = [
        f"{name}: found {shapes.get(name, 'nothing')}, needed {needed.get(name, 'nothing')}"
        for name in sorted(needed.keys() | shapes.keys())
        if needed.get(name) != shapes.get(name)
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(
            f"{origin} holds a model of another shape: {'; '.join(wrong[:5])}{more}. "
            "Give the stage the model config the checkpoint was made with."
        )
