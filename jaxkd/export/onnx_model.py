"""A whole model as one ONNX file, opset 13 and IR 7, old enough for onnxruntime 1.6 (2020)."""

import importlib
import os
import pathlib
import types
import warnings
from typing import Any

import jax
import numpy as np

from jaxkd.models import families
from jaxkd.models.families import Config
from jaxkd.models.model import Params

IR = 7  # onnxruntime up to 1.8 reads no later one; the onnx package's default is too new for all
OPSETS = (13, 14)  # 13 is the first with Softmax along one axis; 15 and later need a newer IR
ROW = ("batch", "length")

_LIMIT = 2**31 - 1  # bytes of one protobuf message
_SLACK = 2**24  # for the graph itself, generously


def extra(name: str) -> types.ModuleType:
    """Import a package that only the extra `export` installs.

    Raises:
      ModuleNotFoundError: if it is not there; says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"exporting needs {name} ({error}). Install it with: pip install 'jaxkd[export]'"
        ) from error


def export_onnx(config: Config, params: Params, file: pathlib.Path, *, opset: int = 13) -> None:
    """Write the float32 model: `input_ids`, `attention_mask` -> `logits`.

    Inputs are int64 [batch, length], as the model's tokenizer gives them; a family with two
    segments has `token_type_ids` too. Logits are [batch, length, V or C], of a classifier of
    sequences [batch, C]. Batch and length are free, up to `config.max_length`. The file appears
    whole or not at all. Names and number of the weights in it are the exporter's choice: it
    transposes, renames and merges equal ones. Whether the numbers are right is not checked here;
    see `verify.verify_onnx`.

    Raises:
      ModuleNotFoundError: without the extra `export`.
      ValueError: for another opset, a family or head the torch bridge does not have, or a model
        larger than a protobuf message can be.
    """
    if opset not in OPSETS:
        raise ValueError(f"opset={opset}; with IR {IR} one of {OPSETS} is possible.")
    check_size(config)
    torch, onnx = extra("torch"), extra("onnx")
    from jaxkd.export.torch_encoder import to_torch

    bridge = to_torch(config, params)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.tmp")
    inputs = input_names(config)
    example = torch.ones((2, min(7, config.max_length)), dtype=torch.int64)
    try:
        with warnings.catch_warnings():
            # The tracing exporter is deprecated (and says so, from several of its own lines), but
            # the newer one ignores opset 13 without a word and writes 18.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.onnx")
            warnings.filterwarnings("ignore", "You are using the legacy", DeprecationWarning)
            torch.onnx.export(
                bridge,
                (example,) * len(inputs),  # ones are valid for each of them
                os.fspath(unfinished),
                dynamo=False,
                opset_version=opset,
                input_names=list(inputs),
                output_names=["logits"],
                dynamic_axes={name: dict(enumerate(axes)) for name, axes in _axes(config).items()},
            )
        model = onnx.load(unfinished)
        model.ir_version = IR
        _split_tied_gemm(onnx, model)
        _check_declared(model, opset, config)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, unfinished)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def input_names(config: Config) -> tuple[str, ...]:
    """The inputs of a config's ONNX file, by the names tokenizers of transformers use.

    >>> input_names(families.FAMILIES["bert"][0]())
    ('input_ids', 'attention_mask', 'token_type_ids')
    """
    segments = ("token_type_ids",) if getattr(config, "segments", 0) > 1 else ()
    return ("input_ids", "attention_mask", *segments)


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


def _split_tied_gemm(onnx: types.ModuleType, model: Any) -> None:
    """Make Transpose, MatMul and Add of each Gemm whose matrix is an embedding too.

    onnxruntime's quantize_dynamic transposes the matrix of a Gemm in place, and the embedding's
    Gather would then read the transpose.
    """
    gathered = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "Gemm" or node.input[1] not in gathered:
            nodes.append(node)
            continue
        attributes = {
            entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute
        }
        expected = {"alpha": 1.0, "beta": 1.0, "transB": 1}
        if attributes | expected != attributes or attributes.get("transA", 0):
            raise RuntimeError(
                f"torch.onnx.export wrote a Gemm with {attributes}; expected were {expected}. "
                "Install the torch version of constraints.txt."
            )
        hidden, matrix, bias = node.input
        transposed, product = f"{node.name}/transposed", f"{node.name}/product"
        make = onnx.helper.make_node
        nodes += [
            make("Transpose", [matrix], [transposed], f"{node.name}/Transpose", perm=[1, 0]),
            make("MatMul", [hidden, transposed], [product], f"{node.name}/MatMul"),
            make("Add", [product, bias], list(node.output), f"{node.name}/Add"),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _axes(config: Config) -> dict[str, tuple[str, ...]]:
    """The free axes of inputs and output."""
    free = ROW[:1] if config.head == "sequence_classification" else ROW
    return dict.fromkeys(input_names(config), ROW) | {"logits": free}


def _check_declared(model, opset: int, config: Config) -> None:
    """Raise RuntimeError if the exporter wrote another opset, or fixed a dimension."""
    values = [*model.graph.input, *model.graph.output]
    written = {
        value.name: tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in values
    }
    last = config.vocabulary if config.head == "masked_lm" else len(config.labels)
    expected = _axes(config)
    expected["logits"] = (*expected["logits"], last)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if written != expected or versions != {"": opset}:
        raise RuntimeError(
            f"torch.onnx.export wrote {written} with opset {versions}; expected were {expected} "
            f"with opset {opset}. Install the torch version of constraints.txt."
        )
