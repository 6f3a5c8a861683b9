"""Time of a mixture-of-experts layer, forward and backward, over its number of experts.

    python benchmarks/experts.py

Each token goes through 2 experts of E; the work is the same for every E, and so should be the time.
Prints the time for each E, interleaved, and the exponent of time over E (least squares of the
logarithms of medians); and the time of computing every expert and weighting, for comparison.
"""

import argparse
import statistics
import sys
import time

import numpy as np
import peers

from jaxkd.runtime.allocator import restart_keeping

EXPERTS = (4, 8, 16, 32, 64)
WIDTH, INNER, CHOSEN, ROWS, LENGTH = 256, 512, 2, 16, 128


def steps():
    """Name -> a compiled gradient step of a layer with that many experts, by either way."""
    import jax
    import jax.numpy as jnp

    from jaxkd.models.feed_forward import Experts

    hidden = jax.random.normal(jax.random.key(0), (ROWS, LENGTH, WIDTH))
    results = {}
    for experts in EXPERTS:
        layer = Experts(
            WIDTH, INNER, INNER, experts, CHOSEN, True, "silu", 0.02, jnp.float32
        )  # fmt: skip
        params = layer.init(jax.random.key(1), hidden)["params"]

        def routed(params, layer=layer):
            return jnp.mean(layer.apply({"params": params}, hidden) ** 2)

        def dense(params, experts=experts):
            router_probs = jax.nn.softmax(hidden @ params["router"]["kernel"])
            share, chosen = jax.lax.top_k(router_probs, CHOSEN)
            share = share / share.sum(-1, keepdims=True)
            weight = jnp.sum(jax.nn.one_hot(chosen, experts) * share[..., None], -2)
            inner = jax.nn.silu(jnp.einsum("BLD,EDN->BLEN", hidden, params["gate"]))
            inner = inner * jnp.einsum("BLD,EDN->BLEN", hidden, params["expand"])
            combined = jnp.einsum("BLEN,END,BLE->BLD", inner, params["contract"], weight)
            shared = params["shared"]
            common = jax.nn.silu(hidden @ shared["gate"]["kernel"])
            common = (common * (hidden @ shared["expand"]["kernel"])) @ shared["contract"]["kernel"]
            gate = jax.nn.sigmoid(hidden @ params["shared_gate"]["kernel"])
            return jnp.mean((combined + gate * common) ** 2)

        ways = {"routed": routed} | ({"every expert": dense} if experts <= 16 else {})
        values = {}
        for name, loss in ways.items():
            step = jax.jit(jax.value_and_grad(loss))
            values[name], _ = jax.block_until_ready(step(params))
            results[name, experts] = lambda step=step, params=params: jax.block_until_ready(
                step(params)
            )
        if "every expert" in values:
            np.testing.assert_allclose(values["routed"], values["every expert"], rtol=1e-4)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds")
    options = parser.parse_args()
    print(f"{ROWS} x {LENGTH} tokens of width {WIDTH}, experts of {INNER}, {CHOSEN} a token")
    print(peers.machine())
    results = steps()
    times = {name: [] for name in results}
    for i in range(options.rounds):
        for name, step in results.items():
            began = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - began)
        print(f"\rround {i + 1}/{options.rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print("| way | experts | median ms | least ms |\n| --- | ---: | ---: | ---: |")
    for (strategy, experts), seconds in times.items():
        median = 1e3 * statistics.median(seconds)
        print(f"| {strategy} | {experts} | {median:.0f} | {1e3 * min(seconds):.0f} |")
    for strategy in ("routed", "every expert"):
        sizes = [e for e in EXPERTS if (strategy, e) in times]
        medians = [statistics.median(times[strategy, e]) for e in sizes]
        slope = np.polyfit(np.log(sizes), np.log(medians), 1)[0]
        print(f"{strategy}: time grows with experts to the power {slope:.2f}")


if __name__ == "__main__":
    restart_keeping()
    main()
