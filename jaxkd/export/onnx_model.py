"""A whole model as one ONNX file, opset 13 and IR 7, old enough for onnxruntime 1.6 (2020)."""

import os
import pathlib

import jax
import numpy as np

from jaxkd.export.emit.kinds import FLOAT32, Weights
from jaxkd.export.emit.whole import encoder_graph
from jaxkd.export.extra import extra
from jaxkd.models import families
from jaxkd.models.families import Config
from jaxkd.models.model import Params

_LIMIT = 2**31 - 1  # bytes of one protobuf message
_SLACK = 2**24  # for the graph itself, generously


def export_onnx(
    config: Config, params: Params, file: pathlib.Path, weights: Weights = FLOAT32
) -> None:
    """Write the model: `input_ids`, `attention_mask` -> `logits`; activations are float32.

    Inputs are int64 [batch, length], as the model's tokenizer gives them; a family with two
    segments has `token_type_ids` too. Logits are [batch, length, V or C], of a classifier of
    sequences [batch, C], of several tasks [batch, K, C]; a bare model has `last_hidden_state`
    instead. Batch and length are free, up to `config.max_length`. Weights have the names of our
    parameters. The file appears whole or not at all. Whether the numbers are right is not checked
    here; see `verify.verify_onnx`.

    Raises:
      ModuleNotFoundError: without the extra `export`.
      ValueError: for a family or head that has no ONNX form, or a model larger than a protobuf
        message can be.
    """
    check_size(config)
    onnx = extra("onnx")
    model = encoder_graph(config, params, weights).model()
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.tmp")
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, unfinished)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def check_size(config: Config) -> None:
    """Raise ValueError if the model is larger than one ONNX file can be."""
    shapes = families.build(config).shapes
    size = 4 * sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    if size + _SLACK > _LIMIT:
        raise ValueError(
            f"the parameters take {size / 2**30:.2f} GiB in float32, and an ONNX file is one "
            "protobuf message, of less than 2 GiB. Export a smaller student, or keep the "
            "HuggingFace folder (jaxkd.hub.folder.save), which has no such limit."
        )
