"""Attention of long rows on a CPU: the weights of some rows at a time against those of all.

    python benchmarks/long_rows.py                       # 32 rows of 256 and of 512 positions
    python benchmarks/long_rows.py --lengths 512 --rounds 9

Two programs for each length, forward and backward: attention alone (4 heads of 32, causal), and a
training step of a decoder (2 layers of width 128, 4 heads, 2,000 tokens, AdamW), in bfloat16. Both
ways take turns in one process, compiled before; the largest difference of what they compute comes
first. MB are what XLA plans to hold at most beside inputs and results.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peers

from jaxkd.core.batch import Batch
from jaxkd.distil.step import initial_state, make_step
from jaxkd.distil.terms import HardLabels
from jaxkd.models import attention, families, llama
from jaxkd.train.optimiser import AdamW

ROWS, MODES = 32, ("all rows", "some rows")
NEVER = 1 << 60


def attention_program(length: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Gradients by queries, keys and values."""
    layer = attention.Attention(128, 4, 0.0, 0.02, jnp.bfloat16, causal=True)
    rng = np.random.default_rng(0)
    hidden, weights = (
        jnp.asarray(rng.standard_normal((ROWS, length, 128)), jnp.bfloat16) for _ in range(2)
    )
    mask = jnp.ones((ROWS, length), bool)
    params = layer.init(jax.random.key(0), hidden, mask, train=False)

    def total(params: Any, hidden: Any) -> Any:
        out = layer.apply(params, hidden, mask, train=True)[0]
        return (out * weights).astype(jnp.float32).sum()

    return jax.grad(total, argnums=(0, 1)), (params, hidden)


def step_program(length: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A training step of a decoder."""
    config = llama.Config(
        layers=2, width=128, heads=4, feed_forward=512, vocabulary=2000, max_length=length,
        compute="bfloat16",
    )  # fmt: skip
    model = families.build(config)
    params = model.init(0)
    optimiser = AdamW().build(params, 100, [])
    step = make_step(model, {"labels": HardLabels()}, optimiser, seed=0, chunk=256)
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(5, 2000, (2, ROWS, length)).astype(np.int32)
    ones = np.ones((ROWS, length), bool)
    batch = Batch(tokens, ones, targets, None, ones)
    return (lambda state: step(state, None, batch)), (initial_state(params, optimiser),)


def compare(make: Callable[[int], Any], length: int, rounds: int) -> list[str]:
    """Times, their ratio, and memory, as cells."""
    programs, results = {}, {}
    usual = attention.LONG
    for mode in MODES:
        attention.LONG = NEVER if mode == MODES[0] else usual
        function, arguments = make(length)
        programs[mode] = (jax.jit(function).lower(*arguments).compile(), arguments)
        results[mode] = jax.tree.leaves(jax.block_until_ready(programs[mode][0](*arguments)))
    attention.LONG = usual
    apart = max(
        float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).max())
        / (float(np.abs(np.asarray(a, np.float32)).max()) + 1e-30)
        for a, b in zip(*results.values(), strict=True)
    )
    times: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(rounds):
        for mode, (run, arguments) in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            times[mode].append(1e3 * (time.perf_counter() - began))
    ratios = sorted(b / a for a, b in zip(*times.values(), strict=True))
    plans = [run.memory_analysis().temp_size_in_bytes / 1e6 for run, _ in programs.values()]
    return [
        f"{apart:.1e}",
        *(f"{statistics.median(each):.0f} ({min(each):.0f})" for each in times.values()),
        f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} .. {ratios[-1]:.2f})",
        *(f"{plan:,.0f}" for plan in plans),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=(256, 512))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print(peers.machine())
    print("| what | length | differ by | all rows: ms (least) | some rows: ms (least) | ratio "
          "| all: MB | some: MB |")  # fmt: skip
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, make in (("attention", attention_program), ("step", step_program)):
        for length in options.lengths:
            cells = compare(make, length, options.rounds)
            print(f"| {name} | {length} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
