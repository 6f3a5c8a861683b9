"""The one switch for what is written differently because of XLA's CPU compiler.

On a CPU XLA (jax 0.10.2) multiplies some bfloat16 matrices in float32, copies a bfloat16 cache to
write into it, copies a side of a product over two axes, and undoes the order of a product that a
CPU wants. Where jaxkd writes such a product otherwise it asks `cpu_workarounds`; each place says
what it gains. Results differ by rounding. `benchmarks/forward_backward.py`, with `--dtype bfloat16`
too, `fused_loss.py --dtype bfloat16`, `beam.py` and `epoch.py` (dropout) measure them: with
JAXKD_CPU_WORKAROUNDS=0 in the environment all are off.

`models/grouped.py` needs no switch: `jax.lax.platform_dependent` chooses there.
"""

import os

import jax


def cpu_workarounds() -> bool:
    """Whether code that is being traced is for a CPU, and may be written for its compiler."""
    return jax.default_backend() == "cpu" and os.environ.get("JAXKD_CPU_WORKAROUNDS", "1") != "0"
