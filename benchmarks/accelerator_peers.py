"""Programs that accelerator.py times against each other: distillation steps, decoding, attention.

Each runs in a process of its own (peers.py) and has one shape by name, and a toy of it.
"""

import dataclasses
import functools
import math
import time
from typing import Any

import numpy as np
import peers
from accelerator_shapes import SHAPES, Shape, shape_of

TEACHER = 1.1  # the teacher's parameters are the student's times this, so that one folder serves


def config_of(shape: Shape) -> Any:
    from jaxkd.models import bert, llama

    sizes = {name: getattr(shape, name) for name in ("layers", "width", "heads", "feed_forward")}
    if shape.family == "llama":
        return llama.Config(
            **sizes, kv_heads=shape.kv_heads, vocabulary=shape.vocabulary, tied=True,
            max_length=shape.length + shape.written,
        )  # fmt: skip
    return bert.Config(
        **sizes, vocabulary=shape.vocabulary, max_length=shape.length, dropout=0.0,
        attention_dropout=0.0, activation="gelu_new",
    )  # fmt: skip


def serve_write(options) -> None:
    """Writes a HuggingFace folder with random weights: here, since jax keeps memory it has had."""

    def check() -> dict[str, str]:
        if options.model == "marian":
            import beam

            beam.write_model(options.folder, toy=options.toy)
        else:
            from jaxkd.hub import folder as hub
            from jaxkd.models import families

            config = config_of(shape_of(options.model, options.toy))
            hub.save(options.folder, config, families.build(config).init(0))
        return {"folder": str(options.folder)}

    peers.serve(check, None)


def tokens_of(shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens [B, L], target positions [B, T] and targets [B, T], uniform."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, shape.vocabulary, (shape.rows, shape.length)).astype(np.int32)
    count = shape.length if shape.family == "llama" else shape.targets
    positions = np.stack(
        [np.sort(rng.permutation(shape.length)[:count]) for _ in range(shape.rows)]
    ).astype(np.int32)
    targets = rng.integers(5, shape.vocabulary, positions.shape).astype(np.int32)
    return tokens, positions, targets


def serve_step_jax(options) -> None:
    import jax
    import jax.numpy as jnp

    from jaxkd.core.batch import Batch
    from jaxkd.distil.step import initial_state, make_step
    from jaxkd.distil.terms import SoftTargets
    from jaxkd.hub import folder as hub
    from jaxkd.models import families
    from jaxkd.train.optimiser import AdamW
    from jaxkd.train.parallel import jitted

    shape = shape_of(options.shape, options.toy)
    config, params = hub.load(str(options.folder))
    gpu = jax.default_backend() == "gpu"
    config = dataclasses.replace(
        config, compute="bfloat16", scan_layers=True, attention="cudnn" if gpu else "plain"
    )
    model = families.build(config)
    params = jax.device_put(model.arrange(params))
    teacher = jax.tree.map(lambda x: x * TEACHER, params)
    adamw = AdamW(learning_rate=1e-4, warmup=0.0, decay="constant", weight_decay=0.0)
    optimiser = adamw.build(params, 1000, [])
    step = jitted(
        make_step(
            model, {"kd": SoftTargets(temperature=1.0)}, optimiser, seed=0, teacher=model,
            chunk=shape.chunk if shape.family == "llama" else 0,
        )
    )  # fmt: skip
    tokens, positions, targets = tokens_of(shape)
    batch = Batch(
        *map(jnp.asarray, (tokens, np.ones(tokens.shape, bool), targets)),
        None if shape.family == "llama" else jnp.asarray(positions),
        jnp.ones(targets.shape, bool),
    )
    state = initial_state(params, optimiser)

    def check() -> dict[str, float]:
        nonlocal state
        state, metrics = step(state, teacher, batch)
        return {name: float(metrics[name].compute()) for name in ("loss", "grad_norm")}

    def time_steps(steps: int) -> dict[str, float]:
        nonlocal state
        began = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, teacher, batch)
        jax.block_until_ready((state, metrics))
        return {"seconds": (time.perf_counter() - began) / steps}

    peers.serve(check, time_steps)


def serve_step_torch(options) -> None:
    """transformers' model, SDPA, bfloat16 by autocast, the loss a chunk of positions at a time.

    Whole logits of 32 x 1024 positions of a Llama would not fit, so that each chunk's are computed
    again in the backward pass; with `liger` its fused loss takes that place.
    """
    import torch
    import transformers
    from torch.utils.checkpoint import checkpoint

    torch.set_num_threads(options.threads)
    shape, device = shape_of(options.shape, options.toy), peers.torch_device()
    llama = shape.family == "llama"
    kind = transformers.LlamaForCausalLM if llama else transformers.BertForMaskedLM
    student = kind.from_pretrained(options.folder).to(device).train()
    teacher = kind.from_pretrained(options.folder).to(device).eval()
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter *= TEACHER
    optimiser = torch.optim.AdamW(
        student.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0, fused=True
    )
    tokens, positions, _ = (torch.tensor(x, device=device).long() for x in tokens_of(shape))
    row = torch.arange(shape.rows, device=device)[:, None]
    wait = peers.torch_waits()

    def hidden(model: Any) -> Any:
        if llama:
            return model.model(tokens).last_hidden_state.flatten(0, 1)
        states = model.bert(tokens).last_hidden_state[row, positions].flatten(0, 1)
        return model.cls.predictions.transform(states)

    def divergence(states: Any, teacher_states: Any) -> Any:
        logits = [
            (model.lm_head if llama else model.cls.predictions.decoder)(each).float()
            for model, each in ((student, states), (teacher, teacher_states))
        ]
        log_q, log_p = (torch.log_softmax(each, -1) for each in logits)
        return torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="sum")

    if "compiled" in options.serve:
        divergence, hidden = torch.compile(divergence), torch.compile(hidden)

    def loss() -> Any:
        with torch.autocast(device, torch.bfloat16):
            with torch.no_grad():
                teacher_states = hidden(teacher)
            states = hidden(student)
            total = 0.0
            for part in zip(
                states.split(shape.chunk), teacher_states.split(shape.chunk), strict=True
            ):
                total = total + checkpoint(divergence, *part, use_reentrant=False)
            return total / len(states)

    def step() -> dict[str, float]:
        optimiser.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        return {"loss": value.detach(), "grad_norm": norm}

    def time_steps(steps: int) -> dict[str, float]:
        step(), wait()
        began = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        return {"seconds": (time.perf_counter() - began) / steps}

    peers.serve(lambda: {name: float(value) for name, value in step().items()}, time_steps)


def summary(tokens: Any, scores: Any) -> dict[str, Any]:
    return {"tokens": np.asarray(tokens).tolist(), "scores": np.asarray(scores).tolist()}


def serve_decode_jax(options) -> None:
    import jax

    from jaxkd.core.batch import Batch
    from jaxkd.decode.beam import Beam, searcher
    from jaxkd.hub import folder as hub
    from jaxkd.models import families

    shape = shape_of(options.shape, options.toy)
    config, params = hub.load(str(options.folder))
    config = dataclasses.replace(config, compute="bfloat16")
    beam = Beam(width=4, max_tokens=shape.written, min_tokens=shape.written)
    search = searcher(families.build(config), config, beam, eos_ids=[1])
    params, (tokens, _, _) = jax.device_put(params), tokens_of(shape)
    batch = Batch(tokens, np.ones(tokens.shape, bool))

    def run() -> Any:
        return jax.device_get(search(params, batch))

    def check() -> dict[str, Any]:
        made = run()
        return summary(made.tokens[:, 0], made.scores[:, 0])

    peers.serve(check, peers.timed(run))


def serve_decode_torch(options) -> None:
    import torch
    import transformers

    torch.set_num_threads(options.threads)
    shape, device = shape_of(options.shape, options.toy), peers.torch_device()
    model = transformers.LlamaForCausalLM.from_pretrained(options.folder, dtype=torch.bfloat16)
    model = model.to(device).eval()
    tokens = torch.tensor(tokens_of(shape)[0], device=device).long()

    def run() -> Any:
        with torch.inference_mode():
            return model.generate(
                tokens, attention_mask=torch.ones_like(tokens), num_beams=4, do_sample=False,
                min_new_tokens=shape.written, max_new_tokens=shape.written, eos_token_id=1,
                pad_token_id=0, output_scores=True, return_dict_in_generate=True,
            )  # fmt: skip

    def check() -> dict[str, Any]:
        made = run()
        written = made.sequences[:, shape.length :].cpu()
        return summary(written, made.sequences_scores.float().cpu())

    peers.serve(check, peers.timed(run))


def attention_inputs(toy: bool) -> list[np.ndarray]:
    """Queries, keys, values and weights of the sum that is differentiated, [B, L, H, K]."""
    rng = np.random.default_rng(0)
    shape = (2, 64, 2, 16) if toy else (8, 4096, 16, 64)
    return [rng.standard_normal(shape, dtype=np.float32) for _ in range(4)]


def norms(gradients: Any) -> dict[str, float]:
    return {
        f"norm_{i}": float(np.linalg.norm(np.asarray(each, np.float32)))
        for i, each in enumerate(gradients)
    }


def serve_attention_jax(options) -> None:
    import jax
    import jax.numpy as jnp

    kind = options.serve.split()[1]
    *arrays, weights = (jnp.asarray(x, jnp.bfloat16) for x in attention_inputs(options.toy))
    attend = functools.partial(jax.nn.dot_product_attention, implementation=kind)
    gradient = jax.jit(
        jax.grad(lambda *qkv: (attend(*qkv) * weights).astype(jnp.float32).sum(), argnums=(0, 1, 2))
    )

    def run() -> Any:
        return jax.block_until_ready(gradient(*arrays))

    peers.serve(lambda: norms(run()), peers.timed(run))


def serve_attention_torch(options) -> None:
    import torch

    torch.set_num_threads(options.threads)
    device, wait = peers.torch_device(), peers.torch_waits()
    *arrays, weights = (
        torch.tensor(x, dtype=torch.bfloat16, device=device).swapaxes(1, 2).contiguous()
        for x in attention_inputs(options.toy)
    )
    for array in arrays:
        array.requires_grad_()

    def run() -> Any:
        out = torch.nn.functional.scaled_dot_product_attention(*arrays)
        gradients = torch.autograd.grad((out * weights).float().sum(), arrays)
        wait()
        return gradients

    peers.serve(lambda: norms(x.float().cpu() for x in run()), peers.timed(run))


def serve_machine(options) -> None:
    """Its peak, measured: a large product of bfloat16, and a copy of memory."""
    import jax
    import jax.numpy as jnp

    multiply, copy = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)

    def best(run: Any, *arguments: Any) -> float:
        least = math.inf
        for _ in range(3 if options.toy else 20):
            began = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            least = min(least, time.perf_counter() - began)
        return least

    def check() -> dict[str, Any]:
        if jax.default_backend() == "cpu" and not options.toy:
            return {"backend": "cpu"}
        size = 256 if options.toy else 16384
        a, b = (jax.random.normal(jax.random.key(i), (size, size), jnp.bfloat16) for i in range(2))
        words = jnp.zeros((size, size), jnp.float32)
        return {
            "flops": 2 * size**3 / best(multiply, a, b),
            "bytes": 2 * words.nbytes / best(copy, words),
            "backend": jax.default_backend(),
        }

    peers.serve(check, None)


SERVES = {
    "step jaxkd": serve_step_jax,
    "step torch": serve_step_torch,
    "decode jaxkd": serve_decode_jax,
    "decode torch": serve_decode_torch,
    "attention torch": serve_attention_torch,
    "attention cudnn": serve_attention_jax,
    "attention xla": serve_attention_jax,
    "machine": serve_machine,
    "write": serve_write,
}


def main() -> None:
    parser = peers.arguments(__doc__)
    parser.add_argument("--shape", default="", choices=("", *SHAPES))
    parser.add_argument("--model", default="", choices=("", "marian", *SHAPES))
    parser.add_argument("--toy", action="store_true")
    options = parser.parse_args()
    serves = next(run for name, run in SERVES.items() if options.serve.startswith(name))
    serves(options)


if __name__ == "__main__":
    main()
