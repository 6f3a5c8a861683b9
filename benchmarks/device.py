"""Bundles against plain onnxruntime: memory, time and size, at BERT-base's shape.

    pip install -c constraints.txt -e '.[export]'
    python benchmarks/device.py                       # all rows
    python benchmarks/device.py --what memory         # under a limit of the process's own memory
    python benchmarks/device.py --what time           # resident and streamed against one session
    python benchmarks/device.py --what growth         # time and memory over 4 to 48 layers
    python benchmarks/device.py --what size           # bytes of each kind of weights

Random weights. Times are medians of interleaved rounds in one process, as ratios; nothing is timed
before the answers are equal. `memory` starts a process for each row, limits its private memory
(RLIMIT_DATA) to what it has at the start plus a number of megabytes, and says whether it answers.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

LIMITED = pathlib.Path(__file__).parent / "limited.py"
LAYERS, WIDTH, HEADS, INNER, VOCABULARY, LENGTH = 12, 768, 12, 3072, 30522, 128
LIMITS = {"float32": 40, "int8": 30}  # megabytes above the start
SPREAD = (25, 75)
PAUSE = 0.03  # seconds between runs


def config(layers: int = LAYERS) -> Any:
    from jaxkd.models.bert import Config

    return Config(
        vocabulary=VOCABULARY, layers=layers, width=WIDTH, heads=HEADS, feed_forward=INNER,
        head="sequence_classification", labels=("no", "yes"),
    )  # fmt: skip


def random_part(shape: Any) -> Any:
    """Random numbers of the size a trained model has, the same for every layer of a shape."""
    from jaxkd.core.tree import map_named

    def draw(name: str, leaf: Any) -> np.ndarray:
        if name.endswith("scale"):
            return np.ones(leaf.shape, np.float32)
        seed = sum(map(ord, name))
        return 0.02 * np.random.default_rng(seed).standard_normal(leaf.shape, np.float32)

    return map_named(draw, shape)


def write(folder: pathlib.Path, layers: int, weights: str) -> pathlib.Path:
    """A bundle, a layer in memory at a time."""
    from jaxkd.export.bundle.write import write_bundle
    from jaxkd.export.emit.kinds import weights_of
    from jaxkd.models import families

    if folder.exists():
        return folder
    chosen = config(layers)
    model = families.build(chosen)
    shapes = model.parts(model.shapes)
    write_bundle(
        folder, chosen, lambda name: random_part(shapes.get(name, {})), weights_of(weights)
    )
    return folder


def write_whole(folder: pathlib.Path, weights: str) -> pathlib.Path:
    """The same weights as one ONNX file."""
    from jaxkd.export.emit.kinds import weights_of
    from jaxkd.export.onnx_model import export_onnx
    from jaxkd.models import families
    from jaxkd.models.parts import join

    chosen = config()
    model = families.build(chosen)
    parts = {name: random_part(part) for name, part in model.parts(model.shapes).items()}
    (file,) = export_onnx(chosen, join(parts), folder, weights_of(weights))
    return file


def interleaved(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of each run in each round, the runs in turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: np.array(each) for name, each in times.items()}


def ratio(first: np.ndarray, second: np.ndarray) -> str:
    """Median of paired ratios, with quartiles."""
    pairs = first / second
    low, high = np.percentile(pairs, SPREAD)
    return f"{np.median(pairs):.2f} ({low:.2f} to {high:.2f})"


def session(file: pathlib.Path, threads: int) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """The first output of a file for arrays by name, of which it takes those it reads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # Its threads spin while it runs, as by default, but not on into the next function's turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    opened = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = {value.name for value in opened.get_inputs()}

    def run(feeds: dict[str, np.ndarray]) -> np.ndarray:
        return opened.run(None, {name: feeds[name] for name in names})[0]

    return run


def feeds_of(ids: np.ndarray) -> dict[str, np.ndarray]:
    """What a BERT reads of rows without padding."""
    zeros = np.zeros_like(ids)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": zeros}


def memory(root: pathlib.Path) -> None:
    print("\n## Memory: limit above the start, 128 tokens, one thread\n")
    print("| weights | what | limit MB | answers | where the weights are |\n|---|---|---|---|---|")
    for weights, limit in LIMITS.items():
        bundle = write(root / weights, LAYERS, weights)
        whole = write_whole(root / f"whole_{weights}", weights)
        expected = None
        for kind, path, allowed in (
            ("bundle", bundle, 1e5), ("bundle", bundle, limit), ("whole file", whole, limit),
            ("whole file", whole, 100), ("whole file", whole, 300), ("whole file", whole, 600),
        ):  # fmt: skip
            command = [sys.executable, str(LIMITED), kind.split()[0], str(path), str(allowed),
                       str(LENGTH)]  # fmt: skip
            done = subprocess.run(
                command, capture_output=True, text=True, env={"MALLOC_ARENA_MAX": "1", "PATH": ""}
            )
            if done.returncode:
                print(f"| {weights} | {kind} | {allowed:g} | no | – |")
                continue
            logits, tiers = json.loads(done.stdout)
            expected = logits if expected is None else expected
            assert np.abs(np.array(logits) - expected).max() < (1e-4 if weights == "float32" else 1)
            count = (
                {} if tiers is None else {tier: tiers.count(tier) for tier in dict.fromkeys(tiers)}
            )
            where = ", ".join(f"{n} {tier}" for tier, n in count.items()) or "in the session"
            print(f"| {weights} | {kind} | {allowed:g} | yes | {where} |", flush=True)


def times(root: pathlib.Path, rounds: int) -> None:
    from jaxkd.device.bundle import Bundle

    ids = np.arange(LENGTH)[None] + 5
    mask = np.ones_like(ids)
    print(f"\n## Time: one text of {LENGTH} tokens, two threads, {rounds} rounds\n")
    print(
        "| weights | what | median ms | of plain onnxruntime | of resident |\n|---|---|---|---|---|"
    )
    for weights in ("float32", "float16", "int8"):
        folder = write(root / weights, LAYERS, weights)
        file = root / f"whole_{weights}" / "model.onnx"
        if not file.exists():
            write_whole(file.parent, weights)
        whole = session(file, 2)
        opened = {"resident": Bundle(folder, threads=2), "mapped": Bundle(folder, threads=2),
                  "one layer at a time": Bundle(folder, threads=2, window=True)}  # fmt: skip
        opened["mapped"].place(["mapped"] * LAYERS)
        runs = {"plain onnxruntime": lambda whole=whole: whole(feeds_of(ids))}
        runs |= {name: lambda b=b: b.model(ids, mask).logits for name, b in opened.items()}
        answers = {name: run() for name, run in runs.items()}
        for logits in answers.values():
            allowed = 1e-4 if weights != "int8" else 0.1
            assert np.abs(logits - answers["plain onnxruntime"]).max() < allowed
        measured = interleaved(runs, rounds)
        for name, each in measured.items():
            print(
                f"| {weights} | {name} | {np.median(each):.1f} | "
                f"{ratio(each, measured['plain onnxruntime'])} | "
                f"{ratio(each, measured['resident'])} |", flush=True,
            )  # fmt: skip
        if weights == "float32":
            reference = measured["plain onnxruntime"]
        elif weights == "int8":
            print(f"\nint8 in one session against float32 in one session, not interleaved: "
                  f"{np.median(reference) / np.median(measured['plain onnxruntime']):.2f} times as "
                  "fast.")  # fmt: skip


def growth(root: pathlib.Path, rounds: int) -> None:
    from jaxkd.device.bundle import Bundle

    ids = np.arange(LENGTH)[None] + 5
    mask = np.ones_like(ids)
    depths, milliseconds, anonymous = (4, 8, 16, 32, 48), [], []
    print(f"\n## Growth with layers, one layer at a time, float32, {rounds} rounds\n")
    print("| layers | median ms | anonymous MB of a process |\n|---|---|---|")
    for layers in depths:
        folder = write(root / f"layers_{layers}", layers, "float32")
        bundle = Bundle(folder, threads=2, window=True)
        run = {"": lambda bundle=bundle: bundle.model(ids, mask)}
        milliseconds.append(float(np.median(interleaved(run, rounds)[""])))
        text = ",".join(map(str, ids[0]))
        done = subprocess.run(
            [sys.executable, str(folder / "run_device.py"), "--bench", "--window", "--ids", text,
             "--seconds", "1"], capture_output=True, text=True, check=True,
        )  # fmt: skip
        anonymous.append(json.loads(done.stdout)["memory"]["anonymous"] / 1e6)
        print(f"| {layers} | {milliseconds[-1]:.1f} | {anonymous[-1]:.1f} |", flush=True)
        shutil.rmtree(folder)
    for name, values in (("time", milliseconds), ("anonymous memory", anonymous)):
        power = np.polyfit(np.log(depths), np.log(values), 1)[0]
        print(f"\n{name} grows with layers to the power {power:.3f}.")


def sizes(root: pathlib.Path) -> None:
    print("\n## Size of the weights\n\n| weights | MB | of float32 |\n|---|---|---|")
    first = None
    for weights in ("float32", "float16", "int8"):
        folder = write(root / weights, LAYERS, weights)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        first = first or size
        print(f"| {weights} | {size / 1e6:.1f} | {size / first:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--what", choices=("all", "memory", "time", "growth", "size"), default="all"
    )
    parser.add_argument("--rounds", type=int, default=21)
    args = parser.parse_args()
    from jaxkd.device.bench import versions

    print(json.dumps(versions()))
    with tempfile.TemporaryDirectory(prefix="jaxkd-device-") as name:
        root = pathlib.Path(name)
        if args.what in ("all", "size"):
            sizes(root)
        if args.what in ("all", "memory"):
            memory(root)
        if args.what in ("all", "time"):
            times(root, args.rounds)
        if args.what in ("all", "growth"):
            growth(root, args.rounds)


if __name__ == "__main__":
    main()
