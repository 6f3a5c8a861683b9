"""All rows that need an accelerator, with their peers, in one command of at most eight minutes.

    pip install -c constraints.txt -e '.[onnx]' && pip install liger-kernel==0.8.5
    python benchmarks/accelerator.py --out speed
    python benchmarks/accelerator.py --rows G4 G1 --out speed     # some of them
    python benchmarks/accelerator.py --toy --out speed            # a dry run on a CPU

G1 and G2: a Jensen-Shannon divergence fused with Llama's vocabulary. G3: cross entropy at Gemma 2's
shape. G4: a distillation step, 1B to 1B, 32 x 1024 tokens. G5: the same of BERT-base's shape, 256 x
128 tokens, masked positions only. G6: beam search of an encoder-decoder, 2,048 sentences. G7: beam
search of a Llama of 1B, 100 prompts of 256 tokens, 256 written. G8: attention over 4,096 tokens.

The largest come first, and a row is written to OUT/accelerator.json and OUT/accelerator.md as soon
as it is done, so that a cut leaves the rest. A row begins only if its usual time is left; a program
that takes longer, fails or runs out of memory is said in the table, and the others go on. Before a
row is timed its programs have to agree, in bfloat16 within 2%. "Floor" is the time at the machine's
own peak, a product of bfloat16 and a copy of memory measured first; "of peak" is floor / time.
Programs of G4 and G7 run one after the other, as they would not fit beside each other; the others
take turns.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import accelerator_shapes as shapes
import beam
import numpy as np
import peers

HERE = pathlib.Path(__file__).parent
LIMIT = 480.0  # seconds
TOLERANCE = 2e-2


@dataclasses.dataclass(frozen=True)
class Row:
    """Programs that do the same work; the first is ours."""

    title: str
    script: str
    names: Sequence[str]
    words: Sequence[str] = ()
    flops: float = 0.0
    bytes: float = 0.0
    # Of accelerator_shapes.py, or "marian": a folder of it is written, which all read.
    model: str = ""
    together: bool = True  # they fit beside each other
    rounds: int = 5
    steps: int = 3
    usual: float = 60.0  # seconds


def fused_row(
    title: str, kind: str, tokens: int, widths: tuple[int, int], vocabulary: int, toy: bool
) -> Row:
    """A loss fused with the vocabulary head (fused_loss.py)."""
    if toy:
        tokens, widths, vocabulary = 64, (32, 48), 512
    student, teacher = widths
    # Forward of both, backward of the student's states and matrix.
    of_teacher = 0 if kind == "cross_entropy" else teacher
    flops = 2 * tokens * vocabulary * (3 * student + of_teacher)
    words = ["--kind", kind, "--dtype", "bfloat16", "--tokens", str(tokens)]
    words += ["--widths", *map(str, widths), "--vocabulary", str(vocabulary)]
    words += ["--chunk", str(16 if toy else 4096)]
    names = ["jaxkd", "torch", "torch compiled"]
    if importlib.util.find_spec("liger_kernel"):
        chunked = [] if kind == "cross_entropy" else ["torch liger 1024 cast"]
        names += chunked + (["torch liger triton"] if peers.torch_device() == "cuda" else [])
    return Row(title, "fused_loss.py", names, words, flops=flops, usual=55)


def rows_of(toy: bool) -> dict[str, Row]:
    """All rows, the largest first."""
    toys = ["--toy"] if toy else []
    compiled = () if toy else ("step torch compiled",)  # takes a C++ compiler long on a CPU

    def step(title: str, name: str, **more: Any) -> Row:
        shape = shapes.shape_of(name, toy)
        return Row(
            title, "accelerator_peers.py",
            ("step jaxkd", "step torch", *compiled),
            ["--shape", name, *toys], flops=shape.step_flops(), model=name, **more,
        )  # fmt: skip

    decode = shapes.shape_of("llama-1b-decode", toy)
    long = "beam 4, 2,048 sentences, Marian 6 + 6 x 512"
    words = ["--sentences", "8", "--rows", "4", "--tokens", "4"]
    words = words if toy else ["--sentences", "2048", "--rows", "512", "--tokens", "32"]
    return {
        "G4": step("KD step, 1B + 1B, 32 x 1024 tokens", "llama-1b", together=False, usual=110),
        "G7": Row(
            "beam 4, Llama 1B, 100 x 256 -> 256 tokens", "accelerator_peers.py",
            ("decode jaxkd", "decode torch"), ["--shape", "llama-1b-decode", *toys],
            bytes=decode.decode_bytes(), together=False, rounds=1, steps=1, usual=80,
            model="llama-1b-decode",
        ),
        "G6": Row(
            long, "beam.py", (beam.LOW, beam.TORCH_LOW), words, rounds=2, steps=1, usual=60,
            model="marian", bytes=0.0 if toy else marian_bytes(2048, 512, 32),
        ),
        "G2": fused_row(
            "JSD, 8192 positions, widths 4096 and 4096, 128,256 tokens", "jensen_shannon",
            8192, (4096, 4096), 128256, toy,
        ),
        "G1": fused_row(
            "JSD, 8192 positions, widths 2048 and 4096, 128,256 tokens", "jensen_shannon",
            8192, (2048, 4096), 128256, toy,
        ),
        "G3": fused_row(
            "cross entropy, 8192 positions, width 2304, 256,000 tokens", "cross_entropy",
            8192, (2304, 2304), 256000, toy,
        ),
        "G5": step("KD step, BERT-base, 256 x 128 tokens", "bert-base", usual=60),
        "G8": Row(
            "attention there and back, 8 x 4096 tokens, 16 heads of 64", "accelerator_peers.py",
            ("attention xla" if toy else "attention cudnn", "attention torch", "attention xla"),
            toys, flops=0.0 if toy else shapes.attention_flops(), usual=25,
        ),
    }  # fmt: skip


def marian_bytes(
    sentences: int, rows: int, tokens: int, width: int = 512, layers: int = 6
) -> float:
    """Least that decoding reads in bfloat16: weights and head in each step, and what is cached.

    4 beams a row have their own keys and values of the tokens so far; those of 24 source tokens are
    a row's.
    """
    weights = 16 * layers * width**2 + width * beam.VOCABULARY
    cached = 2 * layers * width * (4 * rows * tokens / 2 + 24 * rows)
    return 2 * tokens * sentences / rows * (weights + cached)


def measured(
    row: Row, folder: pathlib.Path, threads: int, seconds: float, toy: bool = False
) -> dict[str, Any]:
    """Seconds of each program, those of the row's first too; what failed, with a reason.

    Args:
      seconds: that are left; a program that still runs then is stopped.
    """
    end = time.perf_counter() + seconds
    words = ["--threads", str(threads), *row.words]
    if row.model:
        write = peers.Peer(
            str(HERE / "accelerator_peers.py"), "write",
            ["--model", row.model, "--folder", str(folder), *(["--toy"] if toy else [])], threads,
        )  # fmt: skip
        write.kill_after(seconds)
        try:
            write.ask("check")
        except RuntimeError as error:
            return {"title": row.title, "seconds": {}, "failed": {"model": str(error)}, "words": []}
        finally:
            write.close()
        words += ["--folder", str(folder)]
    checks: dict[str, Any] = {}
    times: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    running: list[peers.Peer] = []

    def attempt(name: str, run: Callable[[], None]) -> None:
        try:
            run()
        except (RuntimeError, ValueError) as error:
            if time.perf_counter() < end:
                failed[name] = str(error)[:200]
            elif name not in times:  # else the rounds that it had count
                failed[name] = "stopped: no time was left"

    def begin(name: str) -> None:
        peer = peers.Peer(str(HERE / row.script), name, words, threads)
        peer.kill_after(end - time.perf_counter())
        running.append(peer)
        checks[name] = peer.ask("check")
        if name != row.names[0]:
            compare(checks[row.names[0]], checks[name])

    def time_rounds(peer: peers.Peer, rounds: int) -> None:
        for _ in range(rounds):
            seconds = peer.ask(f"time {row.steps}")["seconds"]
            times.setdefault(peer.name, []).append(seconds)

    for name in dict.fromkeys(row.names):
        attempt(name, lambda name=name: begin(name))
        if not row.together and running and name not in failed:
            attempt(name, lambda: time_rounds(running[-1], row.rounds))
        if not row.together and running:
            running.pop().close()
        if row.names[0] in failed:
            break
    for _ in range(row.rounds):
        for peer in running:
            if peer.name not in failed and time.perf_counter() < end:
                attempt(peer.name, lambda peer=peer: time_rounds(peer, 1))
    for peer in running:
        peer.close()
    complete = {name: each for name, each in times.items() if name not in failed}
    title = f"toy of: {row.title}" if toy else row.title
    return {"title": title, "seconds": complete, "failed": failed, "words": words[2:]}


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Raise ValueError if two programs computed something else."""
    for name, own in ours.items():
        if name == "tokens":  # rounding turns some hypotheses into others, scores tell the rest
            continue
        own, other = np.asarray(own, float), np.asarray(theirs[name], float)
        size = 1.0 if name.endswith("_probe") else max(1e-2, float(np.abs(own).mean()))
        apart = float(np.abs(own - other).mean()) / size
        if not apart <= TOLERANCE:
            raise ValueError(f"it computes something else: {name} is {100 * apart:.1f}% off ours")


def described(results: dict[str, Any], row: Row, peak: dict[str, float]) -> dict[str, Any]:
    """The row's numbers beside its floor."""
    floor = max(row.flops / peak["flops"], row.bytes / peak["bytes"])
    return results | {"flops": row.flops, "bytes": row.bytes, "floor": floor}


def table(done: dict[str, Any], peak: dict[str, float], machine: str) -> str:
    """All rows so far, as markdown."""
    lines = [
        f"{machine}. Peak, measured: {peak['flops'] / 1e12:.0f} TFLOP/s in bfloat16, copies "
        f"{peak['bytes'] / 1e12:.2f} TB/s.",
        "",
        "| row | what | program | ms, median (least to most) | n | floor ms | of peak "
        "| times ours |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for key, each in done.items():
        ours = next(iter(each["seconds"].values()), None)
        floor = each.get("floor", 0.0)
        for name, seconds in each["seconds"].items():
            median = statistics.median(seconds)
            times = f"{1e3 * median:.1f} ({1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f})"
            share = f"{1e3 * floor:.1f} | {100 * floor / median:.0f}%" if floor else "– | –"
            ratio = median / statistics.median(ours)
            lines.append(
                f"| {key} | {each['title']} | {name} | {times} | {len(seconds)} | {share} "
                f"| {ratio:.2f} |"
            )
        for name, reason in each["failed"].items():
            lines.append(f"| {key} | {each['title']} | {name} | {reason} | | | | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the tables")
    parser.add_argument("--rows", nargs="+", default=(), metavar="ROW", help="G1 to G8; all")
    parser.add_argument("--toy", action="store_true", help="small shapes: a dry run on a CPU")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of all together")
    parser.add_argument("--threads", type=int, default=8, help="of the host's")
    options = parser.parse_args()
    began = time.perf_counter()
    rows = rows_of(options.toy)
    unknown = [name for name in options.rows if name not in rows]
    if unknown:
        parser.error(f"no row {unknown[0]}. Allowed: {', '.join(rows)}.")
    rows = {name: row for name, row in rows.items() if not options.rows or name in options.rows}
    options.out.mkdir(parents=True, exist_ok=True)
    threads = min(options.threads, len(os.sched_getaffinity(0)))
    toys = ["--toy"] if options.toy else []
    first = peers.Peer(str(HERE / "accelerator_peers.py"), "machine", toys, threads)
    peak = first.ask("check")
    first.close()
    if peak["backend"] == "cpu" and not options.toy:
        sys.exit("jax finds no accelerator here. --toy makes a dry run on a CPU.")
    machine = peers.machine()
    done: dict[str, Any] = {}
    for key, row in rows.items():
        left = options.limit - (time.perf_counter() - began)
        if left < (1 if options.toy else row.usual):
            done[key] = {"title": row.title, "seconds": {}, "failed": {"all": "not begun: "
                         f"{left:.0f} s were left, it takes {row.usual:.0f}"}}  # fmt: skip
        else:
            with tempfile.TemporaryDirectory() as place:
                results = measured(row, pathlib.Path(place), threads, left, options.toy)
            done[key] = described(results, row, peak)
        text = table(done, peak, machine)
        (options.out / "accelerator.md").write_text(text)
        (options.out / "accelerator.json").write_text(
            json.dumps({"machine": machine, "peak": peak, "rows": done}, indent=1)
        )
        print(f"{key}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print(table(done, peak, machine))


if __name__ == "__main__":
    main()
