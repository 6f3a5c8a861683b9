"""Every model family by name: from a stored description to a model that can run."""

import dataclasses
from typing import Any

import jax

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
    qwen2,
    qwen2_moe,
    qwen3,
    roberta,
    seq2seq,
)
from jaxkd.models.model import Model, Params

FAMILIES = {  # config, builder
    "bert": (bert.Config, bert.build),
    "distilbert": (distilbert.Config, bert.build),
    "roberta": (roberta.Config, bert.build),
    "albert": (albert.Config, bert.build),
    "gpt2": (gpt2.Config, decoder.build),
    "llama": (llama.Config, decoder.build),
    "qwen2": (qwen2.Config, decoder.build),
    "qwen3": (qwen3.Config, decoder.build),
    "qwen2_moe": (qwen2_moe.Config, decoder.build),
    "marian": (marian.Config, seq2seq.build),
    "bart": (bart.Config, seq2seq.build),
    "lstm": (lstm.Config, lstm.build),
}

Config = config.Config  # what all families' configs come of


def describe(config: Config) -> dict[str, Any]:
    """A config as JSON: {"family": ..., "config": {...}}."""
    for name, (kind, _) in FAMILIES.items():
        if type(config) is kind:
            fields = dataclasses.asdict(config).items()
            stored = {k: list(v) if isinstance(v, tuple) else v for k, v in fields}
            return {"family": name, "config": stored}
    raise TypeError(f"{type(config).__name__} is no model config. Families: {', '.join(FAMILIES)}.")


def from_description(description: dict[str, Any]) -> Config:
    """The config that `describe` wrote."""
    family = description["family"]
    if family not in FAMILIES:
        raise ValueError(f"unknown model family {family!r}. {did_you_mean(family, FAMILIES)}")
    stored = description["config"].items()
    return FAMILIES[family][0](**{k: tuple(v) if isinstance(v, list) else v for k, v in stored})


def build(config: Config) -> Model:
    """The model of a config; raises ValueError for a shape that cannot be built."""
    return FAMILIES[describe(config)["family"]][1](config)


def with_layers(config: Config, layers: int) -> Config:
    """The same shape with another number of blocks.

    >>> with_layers(bert.Config(layers=12), 6).layers
    6
    """
    return dataclasses.replace(config, layers=layers)


def check_shapes(model: Model, params: Params, origin: str) -> None:
    """Raise ValueError, naming parameters, if `params` are not those of `model`."""
    wanted = {k: v.shape for k, v in named(jax.eval_shape(lambda: model.init(0))).items()}
    found = {k: v.shape for k, v in named(params).items()}
    wrong = [
        f"{name}: found {found.get(name, 'nothing')}, needed {wanted.get(name, 'nothing')}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(
            f"{origin} holds a model of another shape: {'; '.join(wrong[:5])}{more}. "
            "Give the stage the model config the checkpoint was made with."
        )
