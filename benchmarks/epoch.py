"""An epoch of a classifier's distillation, from raw text to updated weights, against torch's loop.

    pip install -c constraints.txt -e '.[export]'
    python benchmarks/epoch.py --teacher FOLDER        # all-MiniLM-L6-v2, or another BERT
    python benchmarks/epoch.py --teacher FOLDER --layers 3 --objective predictions

SST-2's first rows, 64 a batch, and the objective of experiments/sst2.py: soft targets, hidden
states through learned matrices, labels. The student has 3 or 5 of the teacher's blocks; token and
position embeddings do not learn; dropout is on. An epoch cuts the texts into tokens, makes batches
and runs the steps; reading the models and compiling are not part of it.

    torch plain      transformers' BertForSequenceClassification, random batches padded to their
                     longest row, float32, the allocator as it comes
    torch tuned      rows of like length together, products in bfloat16 (autocast), the malloc
                     settings that suit torch (peers.py); also compiled, a program for each width
    jaxkd            rows of like length together, products in bfloat16; also in float32
    jaxkd stored     the teacher's scores read from a Label stage's store; its objective is soft
                     targets and labels (predictions): a classifier's store has no hidden states

Nothing is timed before the terms, the norm of the gradient and the updated weights of one batch
agree: in float32 within 1e-4, in bfloat16 within 3%.
"""

import argparse
import dataclasses
import json
import pathlib
import tempfile
from typing import Any

import numpy as np
import peers

BATCH, LENGTH, RATE, TEMPERATURE = 64, 64, 1.5e-4, 2.0
FROZEN = ("embed/token", "embed/position")
OURS, FLOAT32, STORED = "jaxkd", "jaxkd float32", "jaxkd stored"
PLAIN, TUNED, COMPILED = "torch plain", "torch tuned", "torch tuned compiled"
PEERS = {
    "whole": (OURS, FLOAT32, PLAIN, TUNED, COMPILED),
    "predictions": (STORED, OURS, FLOAT32, PLAIN, TUNED, COMPILED),
}
EXACT = (FLOAT32, PLAIN)  # products in float32


def write(options: argparse.Namespace, layers: int, folder: pathlib.Path) -> None:
    """Texts as a table, teacher and student as HuggingFace folders."""
    import transformers

    from jaxkd.data.rows.labelled import Labelled
    from jaxkd.distil.student import kept_blocks, prune
    from jaxkd.hub import folder as hub

    splits = Labelled().dataset(folder).splits
    for split, most in (("train", options.rows), ("validation", BATCH)):
        with open(folder / f"{split}.jsonl", "w") as file:
            for number, (texts, label) in enumerate(splits[split]):
                if number == most:
                    break
                file.write(json.dumps({"text": texts[0], "label": str(label)}) + "\n")
    config, params = hub.load(options.teacher, head="sequence_classification", on_host=True)
    blocks = kept_blocks(config.layers, f"evenly {layers}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.teacher)
    for name, kept in (("teacher", list(range(config.layers))), ("student", blocks)):
        hub.save(
            folder / name, config.keep(kept), prune(params, kept),
            save_tokenizer=tokenizer.save_pretrained,
        )  # fmt: skip


def serve_jax(options: argparse.Namespace) -> None:
    import jax

    from jaxkd.data.rows.labelled import Labelled
    from jaxkd.distil.step import initial_state, make_step
    from jaxkd.distil.terms import HardLabels, HiddenStates, SoftTargets
    from jaxkd.hub import folder as hub
    from jaxkd.models import families
    from jaxkd.stages.fit import term_params
    from jaxkd.train.optimiser import AdamW
    from jaxkd.train.parallel import jitted

    folder, stored = options.folder, options.serve == STORED
    compute = "float32" if options.serve == FLOAT32 else "bfloat16"
    (teacher_config, teacher), (config, student) = (
        hub.load(str(folder / name)) for name in ("teacher", "student")
    )
    teacher_config, config = (
        dataclasses.replace(each, compute=compute) for each in (teacher_config, config)
    )
    data = Labelled(
        train=str(folder / "train.jsonl"), validation=str(folder / "validation.jsonl"),
        tokenizer=str(folder / "teacher"), length=LENGTH,
    )  # fmt: skip
    terms: dict[str, Any] = {
        "soft_targets": SoftTargets(temperature=TEMPERATURE),
        "cross_entropy": HardLabels(weight=0.5),
    }
    if options.objective == "whole":
        terms["hidden"] = HiddenStates(layer_map="uniform")

    def open_rows() -> Any:
        with tempfile.TemporaryDirectory() as cache:
            return data.open(pathlib.Path(cache)).for_model(config)

    first = open_rows()
    model, teacher_model = families.build(config), families.build(teacher_config)
    own = term_params(
        terms, 0, (model, student), (teacher_model, teacher),
        first.batches("validation", BATCH, BATCH),
    )  # fmt: skip
    params = student | ({"terms": own} if own else {})
    optimiser = AdamW(learning_rate=RATE, warmup=0.0, decay="constant").build(params, 1000, FROZEN)
    recall = labelled(folder, teacher_config, teacher, first) if stored else None
    settings: dict[str, Any] = dict(seed=0, teacher=None if stored else teacher_model)
    step, quiet_step = (
        jitted(make_step(model, terms, optimiser, dropout=dropout, **settings))
        for dropout in (config.drops, False)
    )
    teacher = jax.device_put(teacher)
    state = initial_state(jax.device_put(params), optimiser)

    def check() -> dict[str, float]:
        chosen = np.arange(BATCH)
        batch = first.draw(first.splits["train"][chosen], np.random.default_rng(0), None)
        if stored:
            batch = dataclasses.replace(batch, stored_targets=recall(chosen, batch))
        before = np.asarray(student["blocks"][0]["attention"]["query"]["kernel"])
        fresh = initial_state(jax.device_put(params), optimiser)
        fresh, metrics = quiet_step(fresh, teacher, batch)
        after = np.asarray(fresh.params["blocks"][0]["attention"]["query"]["kernel"])
        numbers = {name: float(mean.compute()) for name, mean in metrics.items()}
        return numbers | {"moved": float(np.abs(after - before).sum())}

    def epoch() -> None:
        nonlocal state
        rows = open_rows()
        batches = rows.training(seed=0, batch_size=BATCH, recall=recall).start(0)
        for _ in range(len(rows.splits["train"]) // BATCH):
            state, metrics = step(state, teacher, next(batches))
        jax.block_until_ready((state, metrics))

    peers.serve(check, peers.timed(epoch))


def labelled(folder: pathlib.Path, config: Any, params: Any, rows: Any) -> Any:
    """What reads the teacher's scores, once a Label stage's code has stored them."""
    from jaxkd.checkpoint import teacher_store as store
    from jaxkd.stages.label import Label, recall_from

    label = Label(kind="scores", batch_size=BATCH)
    label_batch = label.make_labeller(config, params, rows, seed=0, size=config.vocabulary)
    count = len(rows.splits["train"])
    fields = label.fields(config, label_batch(np.arange(1))[1])
    store.write_shard(folder / "store", 0, fields, label.examples(np.arange(count), label_batch))
    made_from = {"kind": "scores"}
    store.write_header(folder / "store", fields, made_from, examples=count, shards=1)
    return recall_from(store.Store(folder / "store", {}))


def serve_torch(options: argparse.Namespace) -> None:
    import torch
    import transformers
    from torch.nn import functional

    from jaxkd.data.rows.labelled_rows import bucket_length

    torch.set_num_threads(options.threads)
    peers.fast_float32()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tuned, whole = options.serve != PLAIN, options.objective == "whole"
    load = transformers.BertForSequenceClassification.from_pretrained
    teacher, student = (load(options.folder / name).eval() for name in ("teacher", "student"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.folder / "teacher")
    rows = [json.loads(x) for x in (options.folder / "train.jsonl").read_text().splitlines()]
    texts, classes = [row["text"] for row in rows], sorted({row["label"] for row in rows})
    labels = [classes.index(row["label"]) for row in rows]
    depth, teacher_depth = student.config.num_hidden_layers, teacher.config.num_hidden_layers
    pairs = [(i, max(1, round(i * teacher_depth / depth))) for i in range(1, depth + 1)]
    width = student.config.hidden_size
    matrices = torch.nn.ParameterList(torch.eye(width) for _ in pairs if whole)
    embeddings = student.bert.embeddings
    frozen = [embeddings.word_embeddings.weight, embeddings.position_embeddings.weight]
    every = [*student.parameters(), *matrices]
    learning = [p for p in every if all(p is not other for other in frozen)]
    for each in frozen:
        each.requires_grad_(False)
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), eps=1e-6, fused=True)

    def objective(ids: Any, mask: Any, targets: Any) -> tuple[Any, ...]:
        with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
            with torch.no_grad():
                of_teacher = teacher(ids, mask, output_hidden_states=whole)
            of_student = student(ids, mask, output_hidden_states=whole)
            apart = []
            for (i, j), matrix in zip(pairs, matrices, strict=False):
                states = of_student.hidden_states[i] @ matrix
                apart.append((states, of_teacher.hidden_states[j]))
        logits = of_student.logits.float()
        soft = TEMPERATURE**2 * functional.kl_div(
            torch.log_softmax(logits / TEMPERATURE, -1),
            torch.softmax(of_teacher.logits.float() / TEMPERATURE, -1),
            reduction="batchmean",
        )
        nll = functional.cross_entropy(logits, targets)
        if not whole:
            return soft + 0.5 * nll, soft, nll
        counted = mask.float() / mask.sum()
        hidden = sum(
            (((a.float() - b.float()) ** 2).mean(-1) * counted).sum() for a, b in apart
        ) / len(pairs)
        return soft + 0.5 * nll + hidden, soft, nll, hidden

    if options.serve == COMPILED:
        torch._dynamo.config.recompile_limit = 64
        objective = torch.compile(objective, dynamic=False)

    def collate(chosen: list[list[int]], targets: list[int]) -> tuple[Any, ...]:
        longest = max(map(len, chosen))
        padded = bucket_length(longest) if options.serve == COMPILED else longest
        ids = torch.full((len(chosen), padded), tokenizer.pad_token_id)
        for row, each in zip(ids, chosen, strict=True):
            row[: len(each)] = torch.tensor(each)
        return ids, (ids != tokenizer.pad_token_id).long(), torch.tensor(targets)

    def update(batch: tuple[Any, ...], numbers: dict[str, float] | None = None) -> None:
        for each in every:
            each.grad = None
        loss, *terms = objective(*batch)
        loss.backward()
        if numbers is not None:
            squares = sum((p.grad.double() ** 2).sum() for p in every if p.grad is not None)
            names = ("loss", "soft_targets", "cross_entropy", "hidden")
            values = [float(x.detach()) for x in (loss, *terms)]
            numbers |= dict(zip(names, values, strict=False)) | {"grad_norm": float(squares) ** 0.5}
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()

    def check() -> dict[str, float]:
        first = tokenizer(texts[:BATCH], truncation=True, max_length=LENGTH)["input_ids"]
        query = student.bert.encoder.layer[0].attention.self.query.weight
        before, numbers = query.detach().clone(), {}
        for each in frozen:  # our norm of the gradient has them too
            each.requires_grad_(True)
        update(collate(first, labels[:BATCH]), numbers)
        for each in frozen:
            each.requires_grad_(False)
        numbers["moved"] = float((query.detach() - before).abs().sum())
        student.train()
        return numbers | ({} if tuned else {"matmul_error": peers.matmul_error()})

    def epoch() -> None:
        ids = tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]
        generator = torch.Generator().manual_seed(0)
        order: Any = torch.randperm(len(ids), generator=generator).tolist()
        if tuned:
            lengths = [len(each) for each in ids]
            order = list(
                transformers.trainer_pt_utils.LengthGroupedSampler(
                    BATCH, lengths=lengths, generator=generator
                )
            )
        for start in range(0, len(order) // BATCH * BATCH, BATCH):
            chosen = order[start : start + BATCH]
            update(collate([ids[i] for i in chosen], [labels[i] for i in chosen]))

    peers.serve(check, peers.timed(epoch))


def agree(results: dict[str, dict[str, float]]) -> None:
    """Stop unless all compute the same step."""
    exact = {name: each for name, each in results.items() if name in EXACT}
    peers.agree(exact, FLOAT32)
    peers.agree(results, FLOAT32, tolerance=0.03, exact=False)
    numbers = {key: round(value, 5) for key, value in results[FLOAT32].items()}
    print("the steps agree:", json.dumps(numbers), flush=True)


def main() -> None:
    parser = peers.arguments(__doc__)
    parser.add_argument("--teacher", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--rows", type=int, default=2048, help="of an epoch, a multiple of 64")
    parser.add_argument("--layers", default="3,5", help="of the student, as a,b")
    parser.add_argument("--objective", default="whole,predictions", help="one or both")
    parser.add_argument("--without", default="", help="peers left out, as a,b")
    parser.set_defaults(steps=1, rounds=5)
    options = parser.parse_args()
    if options.serve:
        return (serve_torch if options.serve.startswith("torch") else serve_jax)(options)
    print(peers.machine(), flush=True)
    for layers in map(int, options.layers.split(",")):
        with tempfile.TemporaryDirectory() as place:
            write(options, layers, pathlib.Path(place))
            for objective in options.objective.split(","):
                compare(options, layers, objective, place)


def compare(options: argparse.Namespace, layers: int, objective: str, place: str) -> None:
    """One table: the peers of an objective, interleaved."""
    names = [name for name in PEERS[objective] if name not in options.without.split(",")]
    words = ["--folder", place, "--threads", str(options.threads), "--objective", objective]
    running = [peers.Peer(__file__, name, words, options.threads) for name in names]
    agree({peer.name: peer.ask("check") for peer in running})
    times = peers.interleaved(running, options.rounds, options.steps)
    for peer in running:
        peer.close()
    print(f"\n{layers} layers, {objective}, {options.rows} rows an epoch\n")
    print(peers.table(times, names[0]), flush=True)


if __name__ == "__main__":
    main()
