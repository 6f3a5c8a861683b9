"""Our masked-LM distillation step against the same step in torch with transformers' models.

    pip install -c constraints.txt -e '.[export]' && python benchmarks/train_step.py
    python benchmarks/train_step.py --size mini --rounds 9
    python benchmarks/train_step.py --size mini --rounds 25 --baseline CHECKOUT

With --baseline the peer is the step of another checkout (`git worktree add CHECKOUT COMMIT`).

Teacher forward, student forward and backward, DistilBERT's triple loss at 15% masked positions,
clipping and AdamW, float32, no dropout, 16 x 128 tokens, 30,522 entries. Both sides start from the
same weights and see the same batch; nothing is timed before their losses, gradient norms and
updated weights agree.

The torch peers: `torch` is what DistilBERT's trainer does with transformers' `BertForMaskedLM`
(logits everywhere, then selected); `torch gathered` computes the head at the masked positions only,
which transformers does not offer, to show how much of the ratio is that idea alone. Each is tried
eagerly and with torch.compile. Each side has the malloc settings that suit it (peers.py); matrix
products go through oneDNN where those are float32 (peers.py; their error is printed).
Source of the method: Kalibera and Jones, "Rigorous benchmarking in reasonable time" (2013), in
its simplest form: paired, interleaved, median.
"""

import json
import pathlib
import tempfile
import time

import numpy as np
import peers

SIZES = {  # width, heads, teacher's layers, student's layers
    "mini": (128, 4, 4, 2),
    "small": (512, 8, 4, 2),
    "paper": (768, 12, 4, 2),
}
ROWS, LENGTH, VOCABULARY, TARGETS = 16, 128, 30522, 19
OURS = "jaxkd"
TORCH = ("torch", "torch compiled", "torch gathered", "torch gathered compiled")


def batch() -> dict[str, np.ndarray]:
    """Uniform tokens, ragged rows, 19 targets a row: timing does not depend on their meaning."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(LENGTH // 2, LENGTH + 1, ROWS)
    return {
        "tokens": rng.integers(1000, VOCABULARY, (ROWS, LENGTH)).astype(np.int32),
        "mask": np.arange(LENGTH) < lengths[:, None],
        "positions": np.stack(
            [np.sort(rng.permutation(n)[:TARGETS]) for n in lengths]
        ).astype(np.int32),
        "targets": rng.integers(1000, VOCABULARY, (ROWS, TARGETS)).astype(np.int32),
    }  # fmt: skip


def write_models(size: str, folder: pathlib.Path) -> None:
    """Teacher and student as HuggingFace folders, the student's blocks taken from the teacher."""
    from jaxkd.distil.student import kept_blocks, prune
    from jaxkd.hub import folder as hub
    from jaxkd.models import bert, families

    width, heads, layers, kept = SIZES[size]
    config = bert.Config(
        layers=layers, width=width, heads=heads, feed_forward=4 * width, max_length=LENGTH,
        dropout=0.0, attention_dropout=0.0, activation="gelu_new",
    )  # fmt: skip
    params = families.build(config).init(0)
    hub.save(folder / "teacher", config, params)
    blocks = kept_blocks(layers, "every_other")[:kept]
    student = bert.Config(**(vars(config) | {"layers": len(blocks)}))
    hub.save(folder / "student", student, prune(params, blocks))


def serve_jax(folder: pathlib.Path) -> None:
    import jax
    import jax.numpy as jnp

    from jaxkd.core.batch import Batch
    from jaxkd.distil.step import initial_state, make_step
    from jaxkd.distil.terms import CosineHidden, HardLabels, SoftTargets
    from jaxkd.hub import folder as hub
    from jaxkd.models import families
    from jaxkd.train.optimiser import AdamW
    from jaxkd.train.parallel import jitted

    (teacher_config, teacher), (config, student) = (
        hub.load(str(folder / name)) for name in ("teacher", "student")
    )
    terms = {
        "soft_targets": SoftTargets(weight=5.0, temperature=2.0),
        "mlm": HardLabels(weight=2.0),
        "cosine": CosineHidden(weight=1.0),
    }
    adamw = AdamW(learning_rate=1e-4, warmup=0.0, decay="constant")
    optimiser = adamw.build(student, 1000, ["embed/position"])
    step = jitted(
        make_step(
            families.build(config), terms, optimiser, seed=0, teacher=families.build(teacher_config)
        )
    )
    data = batch()
    fed = Batch(
        jnp.array(data["tokens"]),
        jnp.array(data["mask"]),
        jnp.array(data["targets"]),
        jnp.array(data["positions"]),
        jnp.ones((ROWS, TARGETS), bool),
    )
    teacher = jax.device_put(teacher)
    state = initial_state(jax.device_put(student), optimiser)

    def check() -> dict[str, float]:
        nonlocal state
        state, metrics = step(state, teacher, fed)
        numbers = {name: float(mean.compute()) for name, mean in metrics.items()}
        token = state.params["embed"]["token"]
        return numbers | {"moved": float(jnp.abs(token - student["embed"]["token"]).sum())}

    def time_steps(steps: int) -> dict[str, float]:
        nonlocal state
        began = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, teacher, fed)
        jax.block_until_ready((state, metrics))
        return {"seconds": (time.perf_counter() - began) / steps}

    peers.serve(check, time_steps)


def serve_torch(folder: pathlib.Path, *, gathered: bool, compiled: bool, threads: int) -> None:
    import torch
    import transformers

    torch.set_num_threads(threads)
    peers.fast_float32()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    load = transformers.BertForMaskedLM.from_pretrained
    teacher, student = load(folder / "teacher").eval(), load(folder / "student").train()
    # The positions do not learn. They keep their gradient, which our grad_norm counts too.
    learning = [p for n, p in student.named_parameters() if "position_embeddings" not in n]
    matrices = [p for p in learning if p.ndim > 1]
    undecayed = [p for p in learning if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": undecayed, "weight_decay": 0.0}],
        lr=1e-4, betas=(0.9, 0.98), eps=1e-6, fused=True,
    )  # fmt: skip
    data = batch()
    tokens, mask = torch.tensor(data["tokens"]).long(), torch.tensor(data["mask"])
    positions, targets = (
        torch.tensor(data["positions"]).long(),
        torch.tensor(data["targets"]).long(),
    )
    row = torch.arange(ROWS)[:, None]
    labels = torch.full(tokens.shape, -100)
    labels[row, positions] = targets
    attend = mask.long()

    def run(model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        if gathered:
            hidden = model.bert(tokens, attend).last_hidden_state
            return model.cls(hidden[row, positions]).flatten(0, 1), hidden
        out = model(tokens, attend, output_hidden_states=True)
        return out.logits, out.hidden_states[-1]

    def objective() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            teacher_logits, teacher_hidden = run(teacher)
        logits, hidden = run(student)
        if gathered:
            nll = torch.nn.functional.cross_entropy(logits, targets.flatten())
        else:
            nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
            at = labels != -100
            logits, teacher_logits = logits[at], teacher_logits[at]
        soft = 4 * torch.nn.functional.kl_div(
            torch.log_softmax(logits / 2, -1),
            torch.softmax(teacher_logits / 2, -1),
            reduction="batchmean",
        )
        student_states, teacher_states = hidden[mask], teacher_hidden[mask]
        cosine = torch.nn.functional.cosine_embedding_loss(
            student_states, teacher_states, torch.ones(len(student_states))
        )
        return 5 * soft + 2 * nll + cosine, soft, nll, cosine

    if compiled:
        objective = torch.compile(objective)

    def step(measure: bool = False) -> dict[str, torch.Tensor]:
        student.zero_grad(set_to_none=True)
        loss, soft, nll, cosine = objective()
        loss.backward()
        numbers = {"loss": loss, "soft_targets": soft, "mlm": nll, "cosine": cosine}
        if measure:  # in float64: torch's own float32 norm was seen to be off by 4e-4 here
            numbers["grad_norm"] = (
                sum((p.grad.double() ** 2).sum() for p in student.parameters()) ** 0.5
            )
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        return numbers

    def check() -> dict[str, float]:
        word = student.bert.embeddings.word_embeddings.weight
        before = word.detach().clone()
        numbers = {name: float(value.detach()) for name, value in step(measure=True).items()}
        numbers["matmul_error"] = peers.matmul_error()
        return numbers | {"moved": float((word.detach() - before).abs().sum())}

    def time_steps(steps: int) -> dict[str, float]:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        return {"seconds": (time.perf_counter() - began) / steps}

    peers.serve(check, time_steps)


def main() -> None:
    parser = peers.arguments(__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--baseline", default="", help="another checkout, instead of torch")
    options = parser.parse_args()
    if options.serve == OURS:
        return serve_jax(options.folder)
    if options.serve:
        return serve_torch(
            options.folder,
            gathered="gathered" in options.serve,
            compiled="compiled" in options.serve,
            threads=options.threads,
        )
    width, heads, layers, kept = SIZES[options.size]
    print(f"{options.size}: width {width}, {layers} -> {kept} layers, {ROWS} x {LENGTH} tokens")
    print(peers.machine())
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        write_models(options.size, folder)
        words = ["--folder", place, "--threads", str(options.threads)]
        names = (OURS,) if options.baseline else (OURS, *TORCH)
        running = [peers.Peer(__file__, name, words, options.threads) for name in names]
        if options.baseline:
            other = options.baseline
            running.append(peers.Peer(__file__, OURS, words, options.threads, checkout=other))
        results = {peer.name: peer.ask("check") for peer in running}
        peers.agree(results, OURS)
        print("the steps agree:", json.dumps({k: round(v, 5) for k, v in results[OURS].items()}))
        if "torch" in results:
            print(f"error of torch's matrix products: {results['torch']['matmul_error']:.1e}")
        times = peers.interleaved(running, options.rounds, options.steps)
        for peer in running:
            peer.close()
    print(peers.table(times, OURS))


if __name__ == "__main__":
    main()
