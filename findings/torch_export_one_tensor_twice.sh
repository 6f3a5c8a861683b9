#!/usr/bin/env bash
# torch 2.13.0: torch.export (and torch.onnx.export, whose default it is) takes two arguments that
# are one tensor object for one input. The program still declares both, and reads the second one's
# values for both; no warning, no error. A BERT exported with `ids = torch.ones(...)` for input_ids
# and attention_mask thus looks its words up by the mask. With a copy of the tensor it is right, and
# the tracing exporter (dynamo=False) is right with either.
# Seen: "one tensor: 77.0", "a copy: 57.0" (10 * 5 + 7), each with two declared inputs. Exit status
# 1 if that changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
source "$place/venv/bin/activate"
pip install --quiet torch==2.13.0
python - <<'PYTHON'
import torch


class Model(torch.nn.Module):
    def forward(self, first, second):
        return 10 * first + second


example = torch.ones(2, 3)
results = []
for name, second in (("one tensor", example), ("a copy", example.clone())):
    program = torch.export.export(Model(), (example, second))
    inputs = program.graph_signature.user_inputs
    result = program.module()(torch.full((2, 3), 5.0), torch.full((2, 3), 7.0))[0, 0].item()
    print(f"{name}: {result} (declared inputs: {len(inputs)})")
    results.append((result, len(inputs)))
assert results == [(77.0, 2), (57.0, 2)], "changed"
PYTHON
