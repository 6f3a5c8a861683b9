"""A whole model as one ONNX file, opset 13 and IR 7, old enough for onnxruntime 1.6 (2020)."""

import importlib
import os
import pathlib
import types
import warnings

from jaxkd.core.tree import parameter_count
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
    """Write the float32 model: tokens and mask, int64 [batch, length] -> logits.

    Logits are [batch, length, V or C], of a classifier of sequences [batch, C].

    Batch and length are free, up to `config.max_length`. The mask is 1 where a token counts, as
    tokenizers give it. The file appears whole or not at all. Names and number of the weights in
    it are the exporter's choice: it transposes, renames and merges equal ones. Whether the
    numbers are right is not checked here; see `verify.verify_onnx`.

    Raises:
      ModuleNotFoundError: without the extra `export`.
      ValueError: for another opset, a family or head the torch bridge does not have, or a model
        larger than a protobuf message can be.
    """
    if opset not in OPSETS:
        raise ValueError(f"opset={opset}; with IR {IR} one of {OPSETS} is possible.")
    size = 4 * parameter_count(params)
    if size + _SLACK > _LIMIT:
        raise ValueError(
            f"{file}: the parameters take {size / 2**30:.2f} GiB in float32, and an ONNX file is "
            f"one protobuf message, of less than 2 GiB. Export a smaller student, or keep the "
            f"HuggingFace folder (jaxkd.hub.folder.save), which has no such limit."
        )
    torch, onnx = extra("torch"), extra("onnx")
    from jaxkd.export.torch_encoder import to_torch

    bridge = to_torch(config, params)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.tmp")
    example = torch.ones((2, min(7, config.max_length)), dtype=torch.int64)
    try:
        with warnings.catch_warnings():
            # The tracing exporter is deprecated (and says so, from several of its own lines), but
            # the newer one ignores opset 13 without a word and writes 18.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.onnx")
            warnings.filterwarnings("ignore", "You are using the legacy", DeprecationWarning)
            torch.onnx.export(
                bridge,
                (example, example),
                os.fspath(unfinished),
                dynamo=False,
                opset_version=opset,
                input_names=["tokens", "mask"],
                output_names=["logits"],
                dynamic_axes={name: dict(enumerate(axes)) for name, axes in _axes(config).items()},
            )
        model = onnx.load(unfinished)
        model.ir_version = IR
        _check_declared(model, opset, config)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, unfinished)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def _axes(config: Config) -> dict[str, tuple[str, ...]]:
    """The free axes of what goes in and comes out."""
    free = ROW[:1] if config.head == "sequence_classification" else ROW
    return {"tokens": ROW, "mask": ROW, "logits": free}


def _check_declared(model, opset: int, config: Config) -> None:
    """Raise RuntimeError if the exporter wrote another opset, or fixed a dimension."""
    values = [*model.graph.input, *model.graph.output]
    found = {
        value.name: tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in values
    }
    last = config.vocabulary if config.head == "masked_lm" else len(config.labels)
    wanted = _axes(config)
    wanted["logits"] = (*wanted["logits"], last)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if found != wanted or versions != {"": opset}:
        raise RuntimeError(
            f"torch.onnx.export wrote {found} with opset {versions}, asked for {wanted} with "
            f"opset {opset}. Install the torch version of constraints.txt."
        )
