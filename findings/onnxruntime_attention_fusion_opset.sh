#!/usr/bin/env bash
# onnxruntime 1.31.1: the default optimisation makes one Attention node of a BERT block's attention in
# a file of opset 12, and leaves the same graph alone in opset 13. The only differences are where
# Unsqueeze has its axes (an attribute, then an input) and the number in the header. Raising a
# file's opset thus makes it slower without a word.
# Seen: "opset 12: 1 Attention", "opset 13: 0 Attention", equal outputs. Exit status 1 if that changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
source "$place/venv/bin/activate"
pip install --quiet onnxruntime==1.31.1 onnx==1.23.2
PLACE="$place" python - <<'PYTHON'
import os

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS, KEY = 8, 2, 4
random = np.random.default_rng(0)
path = os.environ["PLACE"]


def model(opset):
    nodes, arrays = [], {}

    def constant(name, value, dtype=np.float32):
        arrays[name] = np.array(value, dtype)
        return name

    def add(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def unsqueeze(value, axis):
        output = f"{value}_{axis}"
        if opset >= 13:
            return add("Unsqueeze", [value, constant(f"axis_{axis}", [axis], np.int64)], output)
        return add("Unsqueeze", [value], output, axes=[axis])

    def dense(name, value):
        matrix = constant(f"{name}_w", random.normal(size=(WIDTH, WIDTH)))
        bias = constant(f"{name}_b", random.normal(size=WIDTH))
        return add("Add", [add("MatMul", [value, matrix], f"{name}_m"), bias], name)

    def norm(name, value):
        centred = add("Sub", [value, add("ReduceMean", [value], f"{name}_u", axes=[-1])], f"{name}_c")
        squared = add("Pow", [centred, constant("two", 2.0)], f"{name}_s")
        variance = add("ReduceMean", [squared], f"{name}_v", axes=[-1])
        root = add("Sqrt", [add("Add", [variance, constant("e", 1e-12)], f"{name}_a")], f"{name}_r")
        scaled = add("Mul", [add("Div", [centred, root], f"{name}_d"), constant(f"{name}_g", np.ones(WIDTH))], f"{name}_p")
        return add("Add", [scaled, constant(f"{name}_h", np.zeros(WIDTH))], name)

    heads = constant("heads", [0, 0, HEADS, KEY], np.int64)
    hidden = norm("first", "x")
    split = {n: add("Reshape", [dense(n, hidden), heads], f"{n}_4") for n in ("q", "k", "v")}
    q, v = (add("Transpose", [split[n]], f"{n}_t", perm=[0, 2, 1, 3]) for n in ("q", "v"))
    k = add("Transpose", [split["k"]], "k_t", perm=[0, 2, 3, 1])
    scores = add("Div", [add("MatMul", [q, k], "qk"), constant("root", 2.0)], "scaled")
    counts = add("Cast", [unsqueeze(unsqueeze("mask", 1), 2)], "counts", to=TensorProto.FLOAT)
    missing = add("Sub", [constant("one", 1.0), counts], "missing")
    bias = add("Mul", [missing, constant("low", -10000.0)], "bias")
    weights = add("Softmax", [add("Add", [scores, bias], "masked")], "weights", axis=3)
    context = add("Transpose", [add("MatMul", [weights, v], "mixed")], "context", perm=[0, 2, 1, 3])
    flat = add("Reshape", [context, constant("flat", [0, 0, WIDTH], np.int64)], "joined")
    norm("y", add("Add", [dense("o", flat), hidden], "sum"))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "block",
        [info("x", TensorProto.FLOAT, ["B", "L", WIDTH]), info("mask", TensorProto.INT64, ["B", "L"])],
        [info("y", TensorProto.FLOAT, ["B", "L", WIDTH])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    made = helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", opset)])
    onnx.checker.check_model(made, full_check=True)
    return made


fused, outputs = [], []
for opset in (12, 13):
    random = np.random.default_rng(0)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = f"{path}/optimised.onnx"
    session = onnxruntime.InferenceSession(
        model(opset).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    fused.append(sum(node.op_type == "Attention" for node in nodes))
    x = np.random.default_rng(1).normal(size=(2, 5, WIDTH)).astype(np.float32)
    outputs.append(session.run(None, {"x": x, "mask": np.ones((2, 5), np.int64)})[0])
    print(f"opset {opset}: {fused[-1]} Attention")
assert np.abs(outputs[0] - outputs[1]).max() < 1e-5
assert fused == [1, 0], "changed"
PYTHON
