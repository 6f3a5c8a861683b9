"""A BERT-small classification step against the same step in torch with transformers' model.

    pip install -c constraints.txt -e '.[export]' && python benchmarks/forward_backward.py
    python benchmarks/forward_backward.py --dtype bfloat16

Forward, backward, clipping and AdamW of 4 layers of width 512 with a two-class head, 16 x 128
tokens, no dropout. Both sides start from the same weights and see the same batch; nothing is timed
before losses, gradient norms and the gradients' products with fixed random weights agree (float32:
1e-4; bfloat16: 2e-2 of the norm). torch runs eagerly and compiled, float32 through oneDNN where
that is float32 (peers.py), bfloat16 by autocast; each side has the malloc settings that suit it
(peers.py).
"""

import json
import pathlib
import tempfile
import time

import numpy as np
import peers

WIDTH, HEADS, LAYERS, ROWS, LENGTH, VOCABULARY = 512, 8, 4, 16, 128, 30522
OURS, TORCH = "jaxkd", ("torch", "torch compiled")
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1000, VOCABULARY, (ROWS, LENGTH)).astype(np.int32)
    return tokens, rng.integers(0, 2, ROWS).astype(np.int32)


def probe(shape: tuple[int, ...]) -> np.ndarray:
    """Random weights on a gradient: the sum tells a wrong sign or order, which a norm does not."""
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def write_model(folder: pathlib.Path) -> None:
    from jaxkd.hub import folder as hub
    from jaxkd.models import bert, families

    config = bert.Config(
        layers=LAYERS, width=WIDTH, heads=HEADS, feed_forward=4 * WIDTH, max_length=LENGTH,
        dropout=0.0, attention_dropout=0.0, classifier_dropout=0.0, activation="gelu_new",
        head="sequence_classification",
    )  # fmt: skip
    hub.save(folder, config, families.build(config).init(0))


def serve_jax(folder: pathlib.Path, dtype: str) -> None:
    import dataclasses

    import jax
    import jax.numpy as jnp
    import optax

    from jaxkd.core.batch import Batch
    from jaxkd.hub import folder as hub
    from jaxkd.losses import hard_labels
    from jaxkd.models import families
    from jaxkd.models.model import forward
    from jaxkd.train.optimiser import AdamW

    config, params = hub.load(str(folder))
    model = families.build(dataclasses.replace(config, compute=dtype))
    optimiser = AdamW(learning_rate=1e-4, warmup=0.0, decay="constant").build(params, 1000, [])
    tokens, labels = (jnp.array(x) for x in batch())
    fed = Batch(tokens, jnp.ones(tokens.shape, bool))

    def step(params, state):
        def loss(params):
            return jnp.mean(hard_labels(forward(model, params, fed).logits, labels))

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(gradient, state, params)
        kernel = gradient["blocks"][1]["attention"]["query"]["kernel"].T
        metrics = {
            "loss": value,
            "grad_norm": optax.tree.norm(gradient),
            "query_probe": jnp.sum(kernel * probe(kernel.shape)) / jnp.linalg.norm(kernel),
            "query_norm": jnp.linalg.norm(kernel),
        }
        return optax.apply_updates(params, updates), state, metrics

    step = jax.jit(step, donate_argnums=(0, 1))
    state = optimiser.init(params)

    def check() -> dict[str, float]:
        nonlocal params, state
        params, state, metrics = step(params, state)
        return {name: float(value) for name, value in metrics.items()}

    def time_steps(steps: int) -> dict[str, float]:
        nonlocal params, state
        began = time.perf_counter()
        for _ in range(steps):
            params, state, metrics = step(params, state)
        jax.block_until_ready((params, metrics))
        return {"seconds": (time.perf_counter() - began) / steps}

    peers.serve(check, time_steps)


def serve_torch(folder: pathlib.Path, dtype: str, *, compiled: bool, threads: int) -> None:
    import torch
    import transformers

    torch.set_num_threads(threads)
    peers.fast_float32()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.BertForSequenceClassification.from_pretrained(folder).train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    undecayed = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": undecayed, "weight_decay": 0.0}],
        lr=1e-4, betas=(0.9, 0.98), eps=1e-6, fused=True,
    )  # fmt: skip
    tokens, labels = (torch.tensor(x).long() for x in batch())

    def objective() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            return torch.nn.functional.cross_entropy(model(tokens).logits.float(), labels)

    if compiled:
        objective = torch.compile(objective)

    def step(measure: bool = False) -> dict[str, torch.Tensor]:
        model.zero_grad(set_to_none=True)
        loss = objective()
        loss.backward()
        metrics = {"loss": loss}
        if measure:
            metrics["grad_norm"] = (
                sum((p.grad.double() ** 2).sum() for p in model.parameters()) ** 0.5
            )
            query = model.bert.encoder.layer[1].attention.self.query.weight.grad
            metrics["query_norm"] = query.norm()
            metrics["query_probe"] = (query * torch.tensor(probe(query.shape))).sum() / query.norm()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return metrics

    def check() -> dict[str, float]:
        metrics = {name: float(value.detach()) for name, value in step(measure=True).items()}
        metrics["matmul_error"] = peers.matmul_error()
        return metrics

    def time_steps(steps: int) -> dict[str, float]:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        return {"seconds": (time.perf_counter() - began) / steps}

    peers.serve(check, time_steps)


def main() -> None:
    parser = peers.arguments(__doc__)
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    options = parser.parse_args()
    if options.serve == OURS:
        return serve_jax(options.folder, options.dtype)
    if options.serve:
        compiled = "compiled" in options.serve
        return serve_torch(
            options.folder, options.dtype, compiled=compiled, threads=options.threads
        )
    print(f"{LAYERS} layers of width {WIDTH}, {ROWS} x {LENGTH} tokens, {options.dtype}")
    print(peers.machine())
    with tempfile.TemporaryDirectory() as place:
        write_model(pathlib.Path(place))
        words = ["--folder", place, "--threads", str(options.threads), "--dtype", options.dtype]
        running = [peers.Peer(__file__, name, words, options.threads) for name in (OURS, *TORCH)]
        results = {peer.name: peer.ask("check") for peer in running}
        peers.agree(results, OURS, TOLERANCE[options.dtype], exact=options.dtype == "float32")
        print("the steps agree:", json.dumps({k: round(v, 5) for k, v in results[OURS].items()}))
        times = peers.interleaved(running, options.rounds, options.steps)
        for peer in running:
            peer.close()
    print(peers.table(times, OURS))


if __name__ == "__main__":
    main()
