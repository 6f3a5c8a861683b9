"""Whole models as ONNX files, opset 13 and IR 7, old enough for onnxruntime 1.6 (2020)."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxkd.export.emit.graph import Graph
from jaxkd.export.emit.kinds import FLOAT32, Weights
from jaxkd.export.emit.whole import graphs
from jaxkd.export.extra import extra
from jaxkd.models import families
from jaxkd.models.families import Config
from jaxkd.models.model import Params

_LIMIT = 2**31 - 1  # bytes of one protobuf message
_SLACK = 2**24  # for the graph itself, generously


def export_onnx(
    config: Config,
    params: Params,
    folder: pathlib.Path,
    weights: Weights = FLOAT32,
    change: Callable[[Graph], Graph] | None = None,
) -> list[pathlib.Path]:
    """Write the model into a folder; returns its files. Activations are float32.

    `model.onnx` has the inputs that the model's tokenizer gives, int64 [batch, length]:
    `input_ids`, `attention_mask` and for a family with two segments `token_type_ids`. Logits are
    [batch, length, V or C], of a classifier of sequences [batch, C], of several tasks
    [batch, K, C]; a bare model has `last_hidden_state` instead. A causal_lm has a cache as well,
    and an encoder-decoder two files, `encoder_model.onnx` and `decoder_model.onnx`: emit/whole.py
    lists their inputs. Batch and lengths are free, up to `config.max_length`. Weights have the
    names of our parameters. A file appears whole or not at all. Whether the numbers are right is
    not checked here; see `verify.verify_onnx`.

    Args:
      change: what is done to each graph before it is written.

    Raises:
      ModuleNotFoundError: without the extra `export`.
      ValueError: for a family or head that has no ONNX form, or a model larger than a protobuf
        message can be.
    """
    check_size(config)
    extra("onnx")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, graph in graphs(config, params, weights):
        write_graph(graph if change is None else change(graph), folder / name)
        files.append(folder / name)
    return files


def write_graph(graph: Graph, file: pathlib.Path) -> None:
    """Check a graph and write it; the file appears whole or not at all."""
    write_model(graph.model(), file)


def write_model(model: Any, file: pathlib.Path) -> None:
    """The same of an onnx.ModelProto."""
    onnx = extra("onnx")
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
            "protobuf message, of less than 2 GiB. Export a smaller student, or only a "
            "HuggingFace folder, which has no such limit: "
            "--config.stages.export.skip=\"('onnx',)\"."
        )
