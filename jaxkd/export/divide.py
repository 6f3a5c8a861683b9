"""Divides any ONNX model into segments whose weights fit a budget, and streams them.

    python -m jaxkd.export.divide MODEL.onnx --budget-mb 64 -o FOLDER
    python FOLDER/run_device.py --inputs in.npz --window -o out.npz

The nodes, in the order of the file, are cut where the fewest numbers cross. What a segment needs of
earlier ones is an input of its graph, and so are its weights, which lie in mapped files: one layer's
worth is in memory at a time. The folder has the same runner as a bundle of ours.
"""  # noqa: E501

import argparse
import json
import pathlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd.export.bundle.files import Files
from jaxkd.export.bundle.write import FORMAT, VERSION, copy_runner
from jaxkd.export.extra import extra
from jaxkd.export.onnx_nodes import Model, read, reads_of

TOLERANCE = 1e-4  # of outputs against the whole model's, relative to their size


def segments(model: Model, budget: int) -> list[range]:
    """Ranges of nodes whose streamed weights take at most `budget` bytes each.

    Of the places where a segment may end it ends at the narrowest one in its second half.

    Raises:
      ValueError: if one node alone has more weights; says the least budget.
    """
    weights = [
        {name for name in reads_of(node) if name in model.initializers and model.streams(name)}
        for node in model.nodes
    ]
    largest = max((sum(map(model.nbytes, each)) for each in weights), default=0)
    if largest > budget:
        raise ValueError(
            f"one node has {largest / 1e6:.1f} MB of weights, more than the budget of "
            f"{budget / 1e6:.1f} MB. The least is --budget-mb {largest / 1e6 + 0.05:.1f}."
        )
    widths = crossing(model)
    made, first = [], 0
    while first < len(weights):
        together: set[str] = set()
        sizes = []
        for own in weights[first:]:
            together = together | own
            sizes.append(sum(map(model.nbytes, together)))
            if sizes[-1] > budget:
                sizes.pop()
                break
        end = first + len(sizes)
        if end < len(weights):
            possible = [first + i + 1 for i, size in enumerate(sizes) if 2 * size >= sizes[-1]]
            end = min(possible, key=lambda place: (widths[place], -place))
        made.append(range(first, end))
        first = end
    return made


def crossing(model: Model) -> list[int]:
    """For each place between nodes, how many numbers cross it; a free dimension counts 1."""
    made_at = {value.name: 0 for value in model.proto.graph.input}
    last_read: dict[str, int] = {}
    for i, node in enumerate(model.nodes):
        for name in reads_of(node):
            last_read[name] = i
        made_at |= {name: i + 1 for name in node.output if name}
    widths = np.zeros(len(model.nodes) + 1, np.int64)
    for name, made in made_at.items():
        if name not in model.initializers and last_read.get(name, -1) >= made:
            widths[made : last_read[name] + 1] += _numbers(model.types.get(name))
    return widths.tolist()


def _numbers(value: Any) -> int:
    if value is None or not value.type.tensor_type.HasField("shape"):
        return 1
    return int(np.prod([max(d.dim_value, 1) for d in value.type.tensor_type.shape.dim] or [1]))


def divide(
    file: pathlib.Path,
    folder: pathlib.Path,
    budget: int,
    example: Mapping[str, np.ndarray] | None = None,
    *,
    constant: bool = False,
) -> list[dict[str, Any]]:
    """Divide a model into a new folder; returns nodes and bytes of each segment.

    Args:
      budget: bytes of the weights of one segment.
      example: inputs to check with; None: ones for whole numbers, random others, and 4 for every
        free dimension.
      constant: weights stay constants of the segments' graphs, from which TensorRT builds engines;
        the runner then holds all of them.
    Raises:
      FileExistsError: if something is in the folder.
      ValueError: for a file that is no model, a budget that one node exceeds, or outputs that
        differ from the whole model's.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; a divided model is written into a new one.")
    model = read(file)
    inputs = _inputs(model)
    example = _example(model, inputs) if example is None else dict(example)
    _complete(model, example)
    ranges = segments(model, budget)
    expected = _whole(model, example)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _write(model, ranges, folder, inputs, example, expected, constant)
    except BaseException:
        shutil.rmtree(folder)
        raise


def _write(
    model: Model, ranges: Sequence[range], folder: pathlib.Path, inputs: Mapping[str, str],
    example: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], constant: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    """The folder of a divided model, compared with the whole model's outputs."""
    files, uses = Files(folder), {} if constant else _uses(model, ranges)
    shared = {
        name: files.tensors(f"shared_{i:03d}", {name: model.array(name)})
        for i, name in enumerate(name for name, users in uses.items() if len(users) > 1)
    }
    described, summary = [], []
    for i, nodes in enumerate(ranges):
        streamed = [name for name, users in uses.items() if i in users]
        proto, reads, outputs = _segment(model, ranges, i, streamed)
        own = {name: model.array(name) for name in streamed if name not in shared}
        weights = [files.tensors(f"segment_{i:03d}", own)]
        weights += [shared[name] for name in streamed if name in shared]
        graph = files.model(f"segment_{i:03d}", proto, reads, outputs, streamed)
        described.append({"graph": graph, "inputs": {}, "weights": weights})
        names = {name for k in nodes for name in reads_of(model.nodes[k])}
        weights = [n for n in names if n in model.initializers and model.streams(n)]
        summary.append({"nodes": len(nodes), "bytes": sum(map(model.nbytes, weights))})
    np.savez(folder / "reference.npz", **{f"input.{n}": a for n, a in example.items()},
             **{f"output.{n}": a for n, a in expected.items()})  # fmt: skip
    copy_runner(folder)
    files.finish({
        "format": FORMAT, "version": VERSION, "kind": "segments", "weights": "as in the model",
        "model": {}, "inputs": inputs, "outputs": list(expected), "segments": described,
        "reference": {"file": "reference.npz", "tolerance": TOLERANCE},
    })  # fmt: skip
    _verify(folder)
    return summary


def _inputs(model: Model) -> dict[str, str]:
    """Names and types of what the model reads."""
    helper, made = extra("onnx").helper, {}
    for value in model.proto.graph.input:
        if value.name not in model.initializers:
            made[value.name] = helper.tensor_dtype_to_np_dtype(
                value.type.tensor_type.elem_type
            ).name
    return made


def _example(model: Model, inputs: Mapping[str, str]) -> dict[str, np.ndarray]:
    draw, made = np.random.default_rng(0), {}
    for name, kind in inputs.items():
        dims = model.types[name].type.tensor_type.shape.dim
        shape = [d.dim_value if d.HasField("dim_value") else 4 for d in dims]
        whole = not np.issubdtype(np.dtype(kind), np.floating)
        made[name] = np.ones(shape, kind) if whole else draw.normal(size=shape).astype(kind)
    return made


def _whole(
    model: Model, example: Mapping[str, np.ndarray], more: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """The outputs of the whole model, and `more` of its values."""
    onnx, runtime = extra("onnx"), extra("onnxruntime")
    proto = model.proto
    if more:
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in more)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(model.folder)
    )
    session = runtime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(example)), strict=True))


def _complete(model: Model, example: Mapping[str, np.ndarray]) -> None:
    """Types and ranks of values that cannot be inferred, as the example shows them."""
    helper = extra("onnx").helper
    unknown = [
        name
        for node in model.nodes
        for name in node.output
        if name and not _is_known(model.types.get(name))
    ]
    if not unknown:
        return
    for name, array in _whole(model, example, unknown).items():
        if name in unknown and isinstance(array, np.ndarray):
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            dims = [f"{name}_{i}" for i in range(array.ndim)]
            model.types[name] = helper.make_tensor_value_info(name, kind, dims)


def _is_known(value: Any) -> bool:
    if value is None:
        return False
    return bool(value.type.tensor_type.elem_type) and value.type.tensor_type.HasField("shape")


def _uses(model: Model, ranges: Sequence[range]) -> dict[str, list[int]]:
    """Which segments read each streamed initializer."""
    uses: dict[str, list[int]] = {}
    for i, nodes in enumerate(ranges):
        for name in dict.fromkeys(n for k in nodes for n in reads_of(model.nodes[k])):
            if name in model.initializers and model.streams(name):
                uses.setdefault(name, []).append(i)
    return uses


def _segment(
    model: Model, ranges: Sequence[range], i: int, streamed: Sequence[str]
) -> tuple[Any, list[str], list[str]]:
    """The model of one segment, what it reads of others, and what it leaves to them."""
    onnx, graph = extra("onnx"), model.proto.graph
    nodes = [model.nodes[k] for k in ranges[i]]
    made = {name for node in nodes for name in node.output if name}
    read = dict.fromkeys(name for node in nodes for name in reads_of(node))
    later = {n for others in ranges[i + 1 :] for k in others for n in reads_of(model.nodes[k])}
    needed = later | {value.name for value in graph.output}
    reads = [name for name in read if name not in made and name not in model.initializers]
    outputs = [name for node in nodes for name in node.output if name in needed]
    constants = [name for name in read if name in model.initializers]
    kept = [
        onnx.numpy_helper.from_array(model.array(name), name)
        for name in constants
        if name not in streamed
    ]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes,
            f"segment {i}",
            [_value(model, name) for name in (*reads, *streamed)],
            [_value(model, name) for name in outputs],
            kept,
        ),
        ir_version=model.proto.ir_version,
        opset_imports=model.proto.opset_import,
        functions=model.proto.functions,
        producer_name="jaxkd",
    )
    return proto, reads, outputs


def _value(model: Model, name: str) -> Any:
    helper = extra("onnx").helper
    if name in model.initializers:
        tensor = model.initializers[name]
        return helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
    if not _is_known(model.types.get(name)):
        raise ValueError(f"the value {name!r} is no tensor, and the model cannot be cut behind it.")
    kind = model.types[name].type.tensor_type
    shape = [
        d.dim_value if d.HasField("dim_value") else d.dim_param or f"{name}_{i}"
        for i, d in enumerate(kind.shape.dim)
    ]
    return helper.make_tensor_value_info(name, kind.elem_type, shape)


def _verify(folder: pathlib.Path) -> None:
    from jaxkd.device.bundle import Bundle

    bundle = Bundle(folder, window=True)
    difference = bundle.reference_difference()
    if not difference <= TOLERANCE:
        raise ValueError(
            f"{folder}: the segments' outputs differ from the whole model's by {difference:.3g}, "
            f"allowed is {TOLERANCE:g}."
        )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m jaxkd.export.divide", description=__doc__)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    parser.add_argument("--budget-mb", type=float, required=True, help="weights of one segment")
    parser.add_argument(
        "--constant", action="store_true", help="weights stay in the graphs, for TensorRT"
    )
    parser.add_argument("--inputs", type=pathlib.Path, help="an npz of inputs to check with")
    args = parser.parse_args(argv)
    if not args.budget_mb > 0:
        parser.error(f"--budget-mb is {args.budget_mb:g}; it is above 0.")
    if not args.model.is_file():
        parser.error(f"{args.model}: no such file.")
    example = None
    if args.inputs is not None:
        with np.load(args.inputs) as arrays:
            example = {name: arrays[name] for name in arrays.files}
    try:
        made = divide(
            args.model, args.output, int(args.budget_mb * 1e6), example, constant=args.constant
        )
    except (FileExistsError, ValueError) as error:
        sys.exit(f"{error}")
    print(json.dumps(made))


if __name__ == "__main__":
    main()
