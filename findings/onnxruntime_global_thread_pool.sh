#!/usr/bin/env bash
# onnxruntime 1.31.1: set_global_thread_pool_sizes, called once anywhere in a process, makes every
# later session with default options an error there ("use_per_session_threads must be false when
# using a global thread pool"), also in code that knows nothing of it. Sessions made before run on.
# The error of the first attempt is printed as a fallback to the same provider, which fails alike.
# A library can therefore not turn shared threads on for its own sessions only.
# Seen: "before: runs", "after, default options: RuntimeError", "after, own threads off: runs",
# "made before: runs". Exit status 1 if that changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
source "$place/venv/bin/activate"
pip install --quiet onnxruntime==1.31.1 onnx==1.23.2
python - 2> "$place/errors" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

info = helper.make_tensor_value_info
graph = helper.make_graph(
    [helper.make_node("Neg", ["x"], ["y"])], "g",
    [info("x", TensorProto.FLOAT, [2])], [info("y", TensorProto.FLOAT, [2])],
)
model = helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 13)])


def outcome(session=None, own_threads=True):
    try:
        if session is None:
            options = onnxruntime.SessionOptions()
            options.use_per_session_threads = own_threads
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        session.run(None, {"x": np.ones(2, np.float32)})
        return session, "runs"
    except Exception as error:
        return None, type(error).__name__


made_before, before = outcome()
onnxruntime.set_global_thread_pool_sizes(1, 1)
seen = {
    "before": before,
    "after, default options": outcome()[1],
    "after, own threads off": outcome(own_threads=False)[1],
    "made before": outcome(made_before)[1],
}
for name, result in seen.items():
    print(f"{name}: {result}")
assert list(seen.values()) == ["runs", "RuntimeError", "runs", "runs"], "changed"
PYTHON
