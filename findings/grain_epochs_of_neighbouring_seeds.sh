#!/usr/bin/env bash
# grain 0.2.18: MapDataset.shuffle(seed).repeat() orders epoch e of seed s as epoch e - 1 of seed
# s + 1, because an epoch's number is added to the seed. Runs with the seeds 0, 1 and 2, as a paper
# reports them, thus see almost the same orders, one epoch apart: they are no independent samples of
# the order. Seen: True for both pairs. Exit status 1 if that changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
source "$place/venv/bin/activate"
pip install --quiet grain==0.2.18
python - <<'PYTHON'
import grain


def epochs(seed, rows=1000, number=3):
    data = grain.MapDataset.range(rows).shuffle(seed=seed).repeat(number)
    return [[data[i] for i in range(e * rows, (e + 1) * rows)] for e in range(number)]


zero, one = epochs(0), epochs(1)
assert sorted(zero[0]) == sorted(one[0]) == list(range(1000)) and zero[0] != one[0]
print("epoch 1 of seed 0 has the order of epoch 0 of seed 1:", zero[1] == one[0])
print("epoch 2 of seed 0 has the order of epoch 1 of seed 1:", zero[2] == one[1])
assert zero[1] == one[0] and zero[2] == one[1], "changed"
PYTHON
