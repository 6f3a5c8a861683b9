"""The matrix products of a step alone, in XLA as our models call them and in torch.

    pip install -c constraints.txt -e '.[export]' && python benchmarks/products.py
    python benchmarks/products.py --dtype bfloat16

What a step needs besides its products is what a library can save. Each product is run as often as
the step of width 512 has it: 4 layers of a classifier, forward and backward (forward_backward.py),
and a distillation step of 4 to 2 layers with the head at 15% of 16 x 128 positions, the teacher's
forward alone (train_step.py --size small). "attention": scores and mixture of 8 heads of 64.
Programs take turns, one shape at a time; nothing is timed before outputs and gradients agree.
"""

import dataclasses
import json
import statistics

import numpy as np
import peers

OURS, TORCH = "jaxkd", "torch"
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
# Rows, inputs, outputs; attention: rows x heads, positions, width of a head.
SHAPES = {
    "projection": (2048, 512, 512),
    "feed-forward, in": (2048, 512, 2048),
    "feed-forward, out": (2048, 2048, 512),
    "attention": (128, 128, 64),
    "head": (307, 512, 30522),
}
LAYER = {"projection": 4, "feed-forward, in": 1, "feed-forward, out": 1, "attention": 1}


@dataclasses.dataclass(frozen=True)
class Step:
    """How often a step has each product: forward alone, and forward and backward."""

    forward: dict[str, int]
    both: dict[str, int]


STEPS = {
    "forward_backward.py": Step({}, {name: 4 * n for name, n in LAYER.items()}),
    "train_step.py --size small": Step(
        {name: 4 * n for name, n in LAYER.items()} | {"head": 1},
        {name: 2 * n for name, n in LAYER.items()} | {"head": 1},
    ),
}


def arrays(shape: str) -> tuple[np.ndarray, ...]:
    """The two sides, and the gradient of the output; of attention queries, keys, values."""
    rng = np.random.default_rng(0)
    a, b, c = SHAPES[shape]
    if shape == "attention":
        sizes = [(16, 8, b, c)] * 4
    else:
        sizes = [(a, b), (b, c), (a, c)]
    return tuple((rng.normal(size=size) / 8).astype(np.float32) for size in sizes)


def serve_jax(shape: str, backward: bool, dtype: str) -> None:
    import jax
    import jax.numpy as jnp

    from jaxkd.models import products

    peers.jax_float32()
    *sides, gradient = (jnp.asarray(x, dtype) for x in arrays(shape))

    def forward(*sides):
        if shape == "attention":
            query, key, value = sides
            weights = products.scores(query, key).astype(query.dtype)
            return products.mixture(weights, value)
        return products.affine(*sides, jnp.zeros((), sides[0].dtype))

    @jax.jit
    def run(sides, gradient):
        if not backward:
            return (forward(*sides),)
        output, pullback = jax.vjp(forward, *sides)
        return output, *pullback(gradient)

    def check() -> dict[str, float]:
        return norms(np.asarray(x, np.float32) for x in run(sides, gradient))

    peers.serve(check, peers.timed(lambda: jax.block_until_ready(run(sides, gradient))))


def serve_torch(shape: str, backward: bool, dtype: str, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    peers.fast_float32()
    *sides, gradient = (torch.tensor(x).to(getattr(torch, dtype)) for x in arrays(shape))
    if shape != "attention":  # torch keeps kernels as [outputs, inputs]
        sides[1] = sides[1].T.contiguous()
    sides = [x.requires_grad_(backward) for x in sides]

    def run() -> tuple[torch.Tensor, ...]:
        if shape == "attention":
            query, key, value = sides
            output = (query @ key.mT) @ value
        else:
            output = torch.nn.functional.linear(*sides)
        if not backward:
            return (output,)
        return output, *torch.autograd.grad(output, sides, gradient)

    def check() -> dict[str, float]:
        numbers = norms(x.detach().float().numpy() for x in run())
        return numbers | {"matmul_error": peers.matmul_error()}

    peers.serve(check, peers.timed(run))


def norms(results) -> dict[str, float]:
    return {f"norm {i}": float(np.linalg.norm(x)) for i, x in enumerate(results)}


def measured(shape: str, backward: bool, options) -> dict[str, list[float]]:
    """Seconds of one product, by program and round."""
    words = ["--shape", shape, "--dtype", options.dtype, "--threads", str(options.threads)]
    words += ["--backward"] * backward
    running = [peers.Peer(__file__, name, words, options.threads) for name in (OURS, TORCH)]
    peers.agree(
        {peer.name: peer.ask("check") for peer in running},
        OURS, TOLERANCE[options.dtype], exact=options.dtype == "float32",
    )  # fmt: skip
    times = peers.interleaved(running, options.rounds, options.steps)
    for peer in running:
        peer.close()
    return times


def main() -> None:
    parser = peers.arguments(__doc__)
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--backward", action="store_true")
    parser.set_defaults(steps=10)
    options = parser.parse_args()
    if options.serve == OURS:
        return serve_jax(options.shape, options.backward, options.dtype)
    if options.serve:
        return serve_torch(options.shape, options.backward, options.dtype, options.threads)
    print(f"{options.dtype}; {peers.machine()}")
    shapes = [options.shape] if options.shape else list(SHAPES)
    cases = [(shape, backward) for shape in shapes for backward in (False, True)]
    times = {case: measured(*case, options) for case in cases}
    for (shape, backward), each in times.items():
        print(f"\n{shape} {SHAPES[shape]}, forward{' and backward' * backward}:\n")
        print(peers.table(each, OURS))
    for name, step in STEPS.items() if not options.shape else ():
        total = {}
        for program in (OURS, TORCH):
            parts = [
                count * np.array(times[shape, backward][program])
                for backward, counts in ((False, step.forward), (True, step.both))
                for shape, count in counts.items()
            ]
            total[program] = [float(x) for x in np.sum(parts, axis=0)]
        print(f"\nAll products of a step of {name}:\n\n{peers.table(total, OURS)}")
        print(json.dumps({k: round(1e3 * statistics.median(v), 1) for k, v in total.items()}))


if __name__ == "__main__":
    main()
