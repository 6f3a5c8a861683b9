"""Answers once in a process whose own memory may grow by some megabytes from its start.

    python benchmarks/limited.py bundle FOLDER 40 128      # megabytes, tokens
    python benchmarks/limited.py whole MODEL.onnx 300 128

The limit (RLIMIT_DATA) is set once Python, numpy and onnxruntime are loaded. Up to 1000 MB a bundle
holds one layer at a time.
"""

import json
import pathlib
import resource
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402

from jaxkd.device.bundle import Bundle  # noqa: E402

WINDOW = 1000  # megabytes up to which a bundle holds one layer at a time


def limit(megabytes: float) -> None:
    used = {}
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        used[name] = value.split()
    most = 1024 * int(used["VmData"][0]) + int(megabytes * 1e6)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def main(kind: str, path: str, megabytes: float, length: int) -> None:
    limit(megabytes)
    ids = np.arange(length)[None] % 97
    if kind == "bundle":
        bundle = Bundle(path, threads=1, window=megabytes < WINDOW)
        logits, tiers = bundle.model(ids, np.ones_like(ids)).logits, bundle.tiers
    else:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        feeds = zip(names, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True)
        logits, tiers = session.run(None, dict(feeds))[0], None
    print(json.dumps([logits.tolist(), tiers]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
