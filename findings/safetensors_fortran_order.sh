#!/usr/bin/env bash
# safetensors 0.8.0, numpy: an array in Fortran order is written as its memory lies, under a header
# that says C order. What is read back has the right shape and other values; nothing is raised.
# It is met without asking for Fortran order: np.concatenate of two transposed arrays is one, as when
# weights of several projections are joined and transposed for a checkpoint.
# Seen: [[0, 3], [1, 4], [2, 5]] is read as [[0, 1], [2, 3], [4, 5]]; a copy by np.ascontiguousarray
# is read as it was. Exit status 1 if that changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
source "$place/venv/bin/activate"
pip install --quiet numpy==2.4.0 safetensors==0.8.0
python - "$place" <<'PYTHON'
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

file = f"{sys.argv[1]}/weights.safetensors"
transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
joined = np.concatenate([transposed, transposed])
save_file(
    {"joined": joined, "transposed": transposed, "copied": np.ascontiguousarray(transposed)}, file
)
read = load_file(file)
for name, array in (("joined", joined), ("transposed", transposed), ("copied", transposed)):
    order = "Fortran" if array.flags.f_contiguous else "C"
    print(f"{name} ({order} order): {array.tolist()} is read as {read[name].tolist()}")
assert read["copied"].tolist() == transposed.tolist()
assert read["transposed"].shape == (3, 2)
assert read["transposed"].tolist() == [[0, 1], [2, 3], [4, 5]], "changed"
assert read["joined"].tolist() != joined.tolist(), "changed"
PYTHON
