"""Time to trace and compile a training step of 24 BERT-base layers: by a loop, and by a scan.

    python benchmarks/compile_time.py
    python benchmarks/compile_time.py --dropout --layers 12

Masked language modelling, 16 x 128 tokens, AdamW, float32; one layer alone tells what does not
depend on their number. Nothing is run: only shapes go in. The compilation cache is off.
"""

import argparse
import dataclasses
import time

import jax
import jax.numpy as jnp
import peers

from jaxkd.core.batch import Batch
from jaxkd.distil.step import initial_state, make_step
from jaxkd.distil.terms import HardLabels
from jaxkd.models import bert, families
from jaxkd.train.optimiser import AdamW

ROWS, LENGTH, TARGETS = 16, 128, 19


def seconds(config: bert.Config, dropout: bool) -> tuple[float, float]:
    """To trace and to compile one step."""
    model = families.build(config)
    params = jax.eval_shape(lambda: model.arrange(model.init(0)))
    optimiser = AdamW().build(params, 100)
    step = make_step(model, {"mlm": HardLabels()}, optimiser, seed=0, dropout=dropout)
    state = jax.eval_shape(lambda params: initial_state(params, optimiser), params)
    tokens, targets = jnp.ones((ROWS, LENGTH), jnp.int32), jnp.ones((ROWS, TARGETS), jnp.int32)
    batch = Batch(tokens, tokens > 0, targets, targets, targets > 0)
    began = time.perf_counter()
    lowered = jax.jit(lambda state, batch: step(state, None, batch)).lower(state, batch)
    traced = time.perf_counter()
    lowered.compile()
    return traced - began, time.perf_counter() - traced


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2, help="turns, interleaved")
    parser.add_argument("--dropout", action="store_true", help="BERT's 0.1, as it is trained")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"{peers.machine()}\n| layers | by | trace s | compile s |\n| ---: | --- | ---: | ---: |")
    for _ in range(options.rounds):
        for layers, scan in ((1, False), (options.layers, True), (options.layers, False)):
            config = dataclasses.replace(bert.Config(), layers=layers, scan_layers=scan)
            trace, compiling = seconds(config, options.dropout)
            strategy = "scan" if scan else "loop"
            print(f"| {layers} | {strategy} | {trace:.1f} | {compiling:.1f} |", flush=True)


if __name__ == "__main__":
    main()
