#!/usr/bin/env bash
# onnxruntime 1.10.0, the last for Python 3.6 and thus for JetPack 4: a valid graph in which an
# activation follows a Gemm of two inputs is refused. Its default optimisation makes one FusedGemm of
# the two, which needs a third input, and then finds its own node invalid. With a third input of one
# zero the same graph opens and gives the right numbers; 1.13.1 opens both.
# Needs Python 3.9 for the old wheels: $PYTHON39, or one of the PATH or of pyenv.
# Seen: "1.10.0 two inputs: INVALID_GRAPH", "1.10.0 three inputs: opens", "1.13.1 two inputs: opens".
# Exit status 1 if that changes.
set -euo pipefail
old=
for each in "${PYTHON39:-}" python3.9 "$(pyenv root 2> /dev/null || true)"/versions/3.9.*/bin/python3; do
  if [ -n "$each" ] && "$each" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 9))' 2> /dev/null; then
    old=$each
    break
  fi
done
[ -n "$old" ] || { echo "there is no Python 3.9"; exit 1; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/new"
source "$place/new/bin/activate"
pip install --quiet onnx==1.23.2
PLACE="$place" python - <<'PYTHON'
import os

from onnx import TensorProto, checker, helper, save

for count in (2, 3):
    inputs = ["x", "w", "zero"][:count]
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", inputs, ["product"], transB=1),
            helper.make_node("Sigmoid", ["product"], ["y"]),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 4]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])] if count == 3 else [],
    )
    model = helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 13)])
    checker.check_model(model, full_check=True)
    save(model, f"{os.environ['PLACE']}/{count}.onnx")
PYTHON
deactivate
"$old" -m venv "$place/old"
source "$place/old/bin/activate"
for pinned in onnxruntime==1.10.0 onnxruntime==1.13.1; do
  pip install --quiet "$pinned" numpy==1.21.6
  PLACE="$place" python - <<'PYTHON'
import os
import sys

import numpy as np
import onnxruntime

version = onnxruntime.__version__
for count, refused in ((2, version == "1.10.0"), (3, False)):
    file = f"{os.environ['PLACE']}/{count}.onnx"
    words = {2: "two", 3: "three"}[count]
    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    except Exception as error:
        seen = "INVALID_GRAPH" in str(error) and "FusedGemm" in str(error)
        print(f"{version} {words} inputs: INVALID_GRAPH" if seen else f"{version}: {error}")
        if not (refused and seen):
            sys.exit(1)
        continue
    draw = np.random.default_rng(0)
    x, w = (draw.normal(size=shape).astype(np.float32) for shape in ((3, 4), (2, 4)))
    (y,) = session.run(None, {"x": x, "w": w})
    right = np.allclose(y, 1 / (1 + np.exp(-x @ w.T)), atol=1e-6)
    print(f"{version} {words} inputs: opens")
    if refused or not right:
        sys.exit(1)
PYTHON
done
