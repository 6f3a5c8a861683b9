"""Small bundles of every family, for tests of the runner."""

import dataclasses
import pathlib

import numpy as np

from jaxkd.export.bundle.files import write_sums
from jaxkd.export.bundle.write import parts_of, write_bundle
from jaxkd.export.emit.kinds import weights_of
from jaxkd.models import families
from tests.models.tiny import random_params

SIZES = dict(
    vocabulary=97, layers=2, width=32, heads=4, feed_forward=48, max_length=24, kv_heads=2,
    encoder_layers=2, start=1, end=2, pad=0,
)  # fmt: skip
LABELS = {"multi_task": ("a:0", "a:1", "b:0", "b:1", "b:2")}
KINDS = [
    (family, head) for family, (kind, _) in families.FAMILIES.items() for head in kind.known_heads
]


def config_of(family: str, head: str, **changes):
    kind = families.FAMILIES[family][0]
    known = {field.name for field in dataclasses.fields(kind)}
    config = kind(**{k: v for k, v in (SIZES | dict(head=head)).items() if k in known} | changes)
    if "classification" in head or head == "multi_task":
        labels = LABELS.get(head, ("x", "y", "z"))
        config = dataclasses.replace(config, **(dict(labels=labels) | changes))
    return config


def write(folder: pathlib.Path, config, weights="float32", *, params=None, bits=7, **more):
    """A bundle of random parameters; returns them."""
    params = random_params(config) if params is None else params
    kind = weights_of(weights, bits if weights == "int8" else 0)
    write_bundle(folder, config, parts_of(config, params), kind, **more)
    return params


def classifier(folder: pathlib.Path, *, exits=(0, 1, 2), labels=("x", "y", "z"), **more):
    """A BERT of four blocks, with exits and what optimal stopping is calibrated with."""
    config = config_of(
        "bert", "sequence_classification", layers=4, exits=exits, labels=labels, exit_reads="mean"
    )
    draw = np.random.default_rng(1)
    count = len(exits) + 1
    moves = draw.random((count - 1, 6, 6))
    policies = {
        "edges": np.sort(draw.random((count, 2)), 1).tolist(),
        "tolerance": 0.1,
        "quality": draw.random((count, 6)).tolist(),
        "moves": (moves / moves.sum(-1, keepdims=True)).tolist(),
        "milliseconds": [2.0, 1.0, 1.5, 1.0][:count],
        "slowest": [3.0, 5.0, 8.0, 9.0][:count],
    }
    params = write(folder, config, policies=policies if exits else None, **more)
    return config, params, policies


def refresh(folder: pathlib.Path) -> None:
    """Digests of what lies in the folder now, as if it had been written so."""
    write_sums(folder)
