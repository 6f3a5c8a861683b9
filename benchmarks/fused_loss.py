"""A divergence fused with the vocabulary head, forward and backward, against torch's ways.

    pip install -c constraints.txt -e '.[export]' && pip install liger-kernel==0.8.5 trl==1.16.0
    python benchmarks/fused_loss.py                                   # Jensen-Shannon, float32
    python benchmarks/fused_loss.py --kind forward_kl --dtype bfloat16
    python benchmarks/fused_loss.py --kind top_k    # a stored teacher of 64 tokens a position
    python benchmarks/fused_loss.py --tokens 256 --vocabulary 151936 --memory     # Qwen's
    python benchmarks/fused_loss.py --dtype bfloat16 --tokens 8192 --vocabulary 128256 \
        --widths 2048 4096 --chunk 2048 --steps 10        # Llama's, for an accelerator

Hidden states of a student (width 512) and a teacher (768) meet 30,522 tokens' vectors each; wanted
are the loss and its gradient by the student's states and matrix. Both sides see the same numbers;
nothing is timed before the loss and the gradients' norms and products with random weights agree
(float32: 1e-4; bfloat16: 2e-2). `--memory` measures instead what a step holds at most beyond its
inputs (peers.py; XLA's own plan where jax runs on an accelerator).

Peers: `torch` writes the loss down on whole logits; `trl` is GKDTrainer.generalized_jsd_loss on
them; `liger N` is LigerFusedLinearJSDLoss, compiled, N positions at a time: its own default and
ours. These have Jensen-Shannon only. `liger triton` is Liger's kernel for a GPU, of Jensen-Shannon
and cross entropy (which has no teacher). `jaxkd dense` beside `top_k` is the forward KL of whole
distributions: another loss, of which the time alone is compared. bfloat16 is torch's autocast;
`liger N cast` gets states and matrices that are bfloat16, as models held in it have. Each side has
the malloc settings that suit it (peers.py); `--untuned` gives torch glibc's own. All take an
accelerator where there is one: that is written, and has not been measured on any.
"""

import importlib.util
import time

import numpy as np
import peers

OURS, DENSE = "jaxkd", "jaxkd dense"
KINDS = ("jensen_shannon", "forward_kl", "top_k", "cross_entropy")
TEMPERATURE = 1.0
TOP_K = 64
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


def inputs(options) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    student, teacher = options.widths

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    made = {
        "student": draw(options.tokens, student),
        "teacher": draw(options.tokens, teacher),
        "student_matrix": draw(options.vocabulary, student) * np.float32(2 * student**-0.5),
        "teacher_matrix": draw(options.vocabulary, teacher) * np.float32(2 * teacher**-0.5),
        "probe": draw(student),
        "labels": rng.integers(0, options.vocabulary, options.tokens).astype(np.int32),
    }
    if options.kind == "top_k":
        logits = (made["teacher"] @ made["teacher_matrix"].T).astype(np.float64)
        log_p = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
        ids = np.argsort(-log_p, -1)[:, :TOP_K]
        chosen = np.take_along_axis(log_p, ids, -1)
        tail = np.log1p(-np.exp(chosen).sum(-1, keepdims=True))
        made["ids"] = ids.astype(np.int32)
        made["log_p"] = np.concatenate([chosen, tail], -1).astype(np.float32)
    return made


def summary(loss, to_states, to_matrix, probe) -> dict[str, float]:
    """Numbers two gradients are compared by; each probe is over its gradient's norm."""
    norms = [float(np.linalg.norm(x)) for x in (to_states, to_matrix)]
    return {
        "loss": float(loss),
        "states_norm": norms[0],
        "matrix_norm": norms[1],
        "states_probe": float((to_states @ probe).sum() / norms[0]),
        "matrix_probe": float((to_matrix[::7] @ probe).sum() / norms[1]),
    }


def serve_jax(options) -> None:
    import jax
    import jax.numpy as jnp

    from jaxkd import losses
    from jaxkd.core.outputs import Projection

    peers.jax_float32()
    data = inputs(options)
    dtype = jnp.dtype(options.dtype)
    kind = "forward_kl" if options.serve == DENSE else options.kind

    def values(logits, teacher, labels):
        if kind == "cross_entropy":
            return {"kd": losses.hard_labels(logits, labels)}
        if kind == "top_k":
            return {"kd": losses.top_k_kl(logits, *teacher)}
        loss = losses.jensen_shannon if kind == "jensen_shannon" else losses.soft_targets
        return {"kd": loss(logits, teacher, temperature=TEMPERATURE)}

    def teacher_of(first, second):
        if kind == "cross_entropy":
            return None
        return (first, second) if kind == "top_k" else Projection(first.astype(dtype), second)

    labels = jnp.asarray(data["labels"])

    @jax.jit
    def step(states, matrix, *teacher):
        def loss(states, matrix):
            return losses.fused(
                values,
                {"kd": 1 / options.tokens},
                Projection(states.astype(dtype), matrix),
                teacher_of(*teacher),
                labels,
                jnp.ones(options.tokens, bool),
                chunk=options.chunk,
            )[0]

        return jax.value_and_grad(loss, argnums=(0, 1))(states, matrix)

    of_teacher = ("ids", "log_p") if kind == "top_k" else ("teacher", "teacher_matrix")
    names = ("student", "student_matrix", *of_teacher)
    arrays = [jax.device_put(data[name]) for name in names]
    compiled = step.lower(*arrays).compile()

    def check() -> dict[str, float]:
        loss, (to_states, to_matrix) = jax.block_until_ready(compiled(*arrays))
        results = summary(loss, np.asarray(to_states), np.asarray(to_matrix), data["probe"])
        return results

    def time_steps(steps: int) -> dict[str, float]:
        began = time.perf_counter()
        for _ in range(steps):
            jax.block_until_ready(compiled(*arrays))
        return {"seconds": (time.perf_counter() - began) / steps}

    def memory() -> dict[str, float]:
        if jax.default_backend() == "cpu":
            return {"bytes": peers.peak_bytes(lambda: jax.block_until_ready(compiled(*arrays)))}
        plan = compiled.memory_analysis()
        return {"bytes": plan.temp_size_in_bytes + plan.output_size_in_bytes}

    peers.serve(check, time_steps, memory)


def serve_torch(options) -> None:
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(options.threads)
    peers.fast_float32()
    data = inputs(options)
    low = options.dtype == "bfloat16"
    device, wait = peers.torch_device(), peers.torch_waits()
    cast = torch.bfloat16 if options.serve.endswith("cast") else torch.float32
    states, matrix, teacher_states, teacher_matrix = (
        torch.tensor(data[name], dtype=cast, device=device)
        for name in ("student", "student_matrix", "teacher", "teacher_matrix")
    )
    states.requires_grad_(), matrix.requires_grad_()
    labels = torch.tensor(data["labels"], device=device).long()
    if options.kind == "top_k":
        ids = torch.tensor(data["ids"], device=device).long()
        log_p = torch.tensor(data["log_p"], device=device)

    def logits() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(device, torch.bfloat16, enabled=low):
            with torch.no_grad():
                teacher_logits = teacher_states @ teacher_matrix.T
            return (states @ matrix.T).float(), teacher_logits.float()

    def without_teacher() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=low):
            student_logits = (states @ matrix.T).float()
        if options.kind == "cross_entropy":
            return F.cross_entropy(student_logits, labels)
        log_q = student_logits.gather(-1, ids) - student_logits.logsumexp(-1, keepdim=True)
        rest = torch.log1p(-log_q.exp().sum(-1, keepdim=True).clamp(max=1 - 1e-7))
        log_q = torch.cat([log_q, rest], -1)
        return F.kl_div(log_q, log_p, log_target=True, reduction="sum") / options.tokens

    def plain() -> torch.Tensor:
        if options.kind in ("cross_entropy", "top_k"):
            return without_teacher()
        student_logits, teacher_logits = logits()
        log_q, log_p = F.log_softmax(student_logits, -1), F.log_softmax(teacher_logits, -1)
        if options.kind == "forward_kl":
            return F.kl_div(log_q, log_p, log_target=True, reduction="sum") / options.tokens
        log_m = torch.logaddexp(log_p, log_q) - np.log(2)
        both = F.kl_div(log_m, log_p, log_target=True, reduction="sum")
        both = both + F.kl_div(log_m, log_q, log_target=True, reduction="sum")
        return both / 2 / options.tokens

    if options.serve == "torch trl":
        from trl.experimental.gkd import GKDTrainer

        def loss() -> torch.Tensor:
            return GKDTrainer.generalized_jsd_loss(*logits(), temperature=TEMPERATURE)

    elif options.serve == "torch liger triton":
        from liger_kernel.transformers.fused_linear_cross_entropy import (
            LigerFusedLinearCrossEntropyLoss,
        )
        from liger_kernel.transformers.fused_linear_jsd import LigerFusedLinearJSD

        def loss() -> torch.Tensor:
            # In bfloat16 throughout: its kernels multiply in the type of what they get.
            own = [each.to(torch.bfloat16) if low else each for each in (states, matrix)]
            if options.kind == "cross_entropy":
                return LigerFusedLinearCrossEntropyLoss()(own[1], own[0], labels)
            others = [x.to(own[0].dtype) for x in (teacher_states, teacher_matrix)]
            return LigerFusedLinearJSD(jsd_beta=0.5)(*own, *others, None)

    elif options.serve.startswith("torch liger"):
        from liger_kernel.chunked_loss.jsd_loss import LigerFusedLinearJSDLoss

        fused = LigerFusedLinearJSDLoss(
            weight_hard_loss=0.0, weight_soft_loss=1.0, chunk_size=int(options.serve.split()[2])
        )

        def loss() -> torch.Tensor:
            with torch.autocast(device, torch.bfloat16, enabled=low and cast == torch.float32):
                return fused(states, matrix, teacher_states, teacher_matrix, labels)

    else:
        loss = torch.compile(plain) if "compiled" in options.serve else plain

    def step() -> torch.Tensor:
        states.grad = matrix.grad = None
        value = loss()
        value.backward()
        return value

    def check() -> dict[str, float]:
        value = step()
        gradients = (x.grad.float().cpu().numpy() for x in (states, matrix))
        results = summary(value.detach(), *gradients, data["probe"])
        return results | {"matmul_error": peers.matmul_error()}

    def time_steps(steps: int) -> dict[str, float]:
        if device != "cpu":
            step(), wait()  # takes again the memory that was given back
        began = time.perf_counter()
        for _ in range(steps):
            step(), wait()
        return {"seconds": (time.perf_counter() - began) / steps}

    def memory() -> dict[str, float]:
        states.grad = matrix.grad = None
        return {"bytes": peers.peak_bytes(step)}

    peers.serve(check, time_steps, memory)


def main() -> None:
    parser = peers.arguments(__doc__)
    parser.add_argument("--kind", choices=KINDS, default="jensen_shannon")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument(
        "--widths", type=int, nargs=2, default=(512, 768), metavar=("STUDENT", "TEACHER")
    )
    parser.add_argument("--vocabulary", type=int, default=30522)
    parser.add_argument("--chunk", type=int, default=256, help="positions ours takes at a time")
    parser.add_argument("--untuned", action="store_true", help="torch with glibc's own settings")
    parser.add_argument("--without", default="", help="peers left out, as a,b")
    parser.add_argument(
        "--unlike", default="", help="peers whose gradients may differ; how far is printed"
    )
    parser.add_argument("--memory", action="store_true", help="of a step, instead of its time")
    options = parser.parse_args()
    if options.serve:
        return (serve_jax if options.serve.startswith(OURS) else serve_torch)(options)
    names = [OURS, *([DENSE] if options.kind == "top_k" else []), "torch", "torch compiled"]
    if options.kind == "jensen_shannon":
        names += ["torch trl"] if importlib.util.find_spec("trl") else []
        if importlib.util.find_spec("liger_kernel"):
            liger = [f"torch liger {chunk}" for chunk in sorted({1024, options.chunk})]
            names += liger + [f"{name} cast" for name in liger if options.dtype == "bfloat16"]
    if importlib.util.find_spec("liger_kernel") and peers.torch_device() == "cuda":
        names += (
            ["torch liger triton"] if options.kind in ("jensen_shannon", "cross_entropy") else []
        )
    names = [name for name in names if name not in options.without.split(",")]
    if options.untuned:
        peers.TORCH = {}
    widths = " and ".join(map(str, options.widths))
    print(f"{options.kind}, {options.dtype}: {options.tokens} positions, {options.vocabulary}"
          f" tokens, widths {widths}\n{peers.machine()}")  # fmt: skip
    words = ["--widths", *map(str, options.widths)]
    for name in ("kind", "dtype", "tokens", "vocabulary", "chunk", "threads"):
        words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    running = [peers.Peer(__file__, name, words, options.threads) for name in names]
    results = {peer.name: peer.ask("check") for peer in running}
    exact = options.dtype == "float32"
    unlike = options.unlike.split(",")
    comparable = {name: each for name, each in results.items() if name != DENSE}
    peers.agree(comparable, OURS, TOLERANCE[options.dtype], exact=exact, unlike=unlike)
    print("ours:", {k: round(v, 5) for k, v in results[OURS].items()})
    if options.memory:
        peaks = {peer.name: peer.ask("memory")["bytes"] for peer in running}
        print("| step | MB | times ours |\n| --- | ---: | ---: |")
        for name, size in peaks.items():
            print(f"| {name} | {size / 1e6:,.0f} | {size / peaks[OURS]:.1f} |")
        return
    times = peers.interleaved(running, options.rounds, options.steps)
    for peer in running:
        peer.close()
    print(peers.table(times, OURS))


if __name__ == "__main__":
    main()
