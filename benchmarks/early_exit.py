"""Early exit in wall-clock time: against the whole model, and against PABEE's loop in torch.

    pip install -c constraints.txt -e '.[export]'
    python benchmarks/early_exit.py                    # both, at MiniLM-L6's shape
    python benchmarks/early_exit.py --what depth       # time over mean depth, batch 32 and batch 1
    python benchmarks/early_exit.py --what peers       # against torch at batch size 1

`depth`: rows stop at random exits, each on its own, with a probability that gives a mean depth f (a
share of the blocks). A perfect early exit takes f of the whole model's time; heads, gathering and
half-empty batches cost the rest. `peers`: patience 1 on the same weights and rows; PABEE's code
runs one row at a time, ours 32 rows; nothing is timed before all rows stop at the same exits.
"""

import dataclasses
import pathlib
import tempfile
import time
from typing import Any

import numpy as np
import peers

OURS, OURS_ONE = "jaxkd, batch 32", "jaxkd, batch 1"
TORCH, TORCH_WHOLE = "torch PABEE, batch 1", "torch whole model, batch 32"
LAYERS, WIDTH, HEADS, INNER, VOCABULARY = 6, 384, 12, 1536, 30522
PATIENCE, ALLOWED = 1, {32: 0.10, 1: 0.07}


def token_rows(rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(5, VOCABULARY, (rows, length)).astype(np.int32)


def model() -> tuple[Any, Any]:
    """MiniLM-L6's shape with an exit after every block, and random weights."""
    import jax

    from jaxkd.models import families
    from jaxkd.models.bert import Config

    config = Config(
        vocabulary=VOCABULARY, layers=LAYERS, width=WIDTH, heads=HEADS, feed_forward=INNER,
        head="sequence_classification", exits=tuple(range(LAYERS - 1)),
    )  # fmt: skip
    params = families.build(config).init(0)
    # Classifiers whose answers differ, so that rows stop at several exits.
    names = [name for name in params if name.startswith(("exit_", "head"))]
    for name in names:
        classify = params[name]["classify"]
        params[name]["classify"] = jax.tree.map(lambda leaf: 30 * leaf, classify)
    return config, params


def batches(rows: np.ndarray, size: int) -> list[Any]:
    from jaxkd.core.batch import Batch

    return [
        Batch(tokens=part, mask=np.ones(part.shape, bool))
        for part in np.split(rows, len(rows) // size)
    ]


def depth(options: Any) -> None:
    """Time over mean depth, all in turns within one process."""
    import jax.numpy as jnp

    from jaxkd.exits import rules
    from jaxkd.exits.run import EarlyExit
    from jaxkd.exits.timing import interleaved, milliseconds_a_row, whole
    from jaxkd.models import families

    @dataclasses.dataclass(frozen=True)
    class AtRandom(rules.Rule):
        """Stop with some probability: digits of a logit are the random number."""

        probability: float = 0.5

        def stops(self, count: Any, history: Any, logits: Any, number: Any) -> Any:
            digits = jnp.abs(logits[:, 0]) * 1e3
            return digits - jnp.floor(digits) < self.probability

    config, params = model()
    built = families.build(config)
    plain = families.build(dataclasses.replace(config, exits=()))
    plain_params = {name: params[name] for name in ("embed", "blocks", "head")}
    print("\n| batch | probability | mean depth f | ms a row | of the whole model | allowed |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for size in (32, 1):
        rows = token_rows(options.rows if size > 1 else options.rows // 4, options.length)
        parts = batches(rows, size)
        functions = {"whole": whole(plain, plain_params)}
        depths = {}
        run = EarlyExit(built, AtRandom(), len(config.labels))
        for probability in (0.0, 0.1, 0.2, 0.35, 0.5, 0.8):
            early = run.with_rule(AtRandom(probability))
            exits = np.concatenate([early(params, part).exits for part in parts])
            depths[probability] = float((exits + 1).mean()) / LAYERS
            functions[str(probability)] = lambda batch, early=early: early(params, batch)
        measured = interleaved(functions, parts, options.rounds)
        for probability, share in depths.items():
            ratios = measured[str(probability)].seconds.sum(1) / measured["whole"].seconds.sum(1)
            milliseconds = milliseconds_a_row(measured[str(probability)], parts)
            print(
                f"| {size} | {probability:g} | {share:.3f} | {milliseconds:.3f} | "
                f"{np.median(ratios):.3f} ({ratios.min():.3f} .. {ratios.max():.3f}) | "
                f"{share + ALLOWED[size]:.3f} |"
            )


def serve(options: Any) -> None:
    if options.serve.startswith("torch"):
        answer = torch_answers(options)
    else:
        answer = our_answers(options, 32 if options.serve == OURS else 1)

    def time_steps(steps: int) -> dict[str, float]:
        start = time.perf_counter()
        for _ in range(steps):
            answer()
        return {"seconds": (time.perf_counter() - start) / steps}

    def check() -> dict[str, float]:
        exits = answer()
        answer()
        return {f"row {i}": float(exit) for i, exit in enumerate(exits)}

    peers.serve(check, time_steps)


def our_answers(options: Any, size: int) -> Any:
    """A function that runs all rows and returns the exit of each."""
    from jaxkd.exits import rules
    from jaxkd.exits.run import EarlyExit
    from jaxkd.hub import folder
    from jaxkd.models import families

    config, params = folder.load(str(options.folder), warn=lambda text: None)
    run = EarlyExit(families.build(config), rules.Patience(PATIENCE), len(config.labels))
    parts = batches(token_rows(options.rows, options.length), size)
    return lambda: np.concatenate([run(params, part).exits for part in parts])


def torch_answers(options: Any) -> Any:
    """PABEE's inference: one row at a time, block by block, until the answers agree."""
    import safetensors.torch
    import torch
    import transformers

    peers.fast_float32()
    torch.set_num_threads(options.threads)
    bert = transformers.BertForSequenceClassification.from_pretrained(options.folder).eval()
    tensors = safetensors.torch.load_file(options.folder / "model.safetensors")
    heads = [
        [tensors[f"exits.{i}.{part}.{kind}"] for part in ("pool", "classify")
         for kind in ("weight", "bias")]
        for i in range(LAYERS - 1)
    ]  # fmt: skip
    pool, classify = bert.bert.pooler.dense, bert.classifier
    heads.append([pool.weight, pool.bias, classify.weight, classify.bias])
    rows = torch.from_numpy(token_rows(options.rows, options.length).astype(np.int64))

    def stopped_at(row: Any) -> int:
        hidden = bert.bert.embeddings(row[None])
        last, count = None, 0
        for i, layer in enumerate(bert.bert.encoder.layer):
            output = layer(hidden)
            hidden = output[0] if isinstance(output, tuple) else output
            pool_weight, pool_bias, weight, bias = heads[i]
            pooled = torch.tanh(torch.nn.functional.linear(hidden[:, 0], pool_weight, pool_bias))
            answer = int(torch.nn.functional.linear(pooled, weight, bias).argmax())
            count = count + 1 if answer == last else 0
            if count == PATIENCE:
                return i
            last = answer
        return LAYERS - 1

    def one_by_one() -> np.ndarray:
        with torch.inference_mode():
            return np.array([stopped_at(row) for row in rows])

    def all_blocks() -> np.ndarray:
        with torch.inference_mode():
            for part in rows.split(32):
                bert(part)
        return one_by_one.exits

    one_by_one.exits = one_by_one()
    return one_by_one if options.serve == TORCH else all_blocks


def against_torch(options: Any) -> None:
    from jaxkd.hub import folder

    with tempfile.TemporaryDirectory() as name:
        config, params = model()
        folder.save(pathlib.Path(name), config, params)
        words = ["--folder", name, "--rows", str(options.rows), "--length", str(options.length)]
        started = [
            peers.Peer(__file__, each, [*words, "--threads", str(options.threads)], options.threads)
            for each in (OURS, OURS_ONE, TORCH, TORCH_WHOLE)
        ]
        results = {peer.name: peer.ask("check") for peer in started}
        peers.agree(results, OURS, exact=False)
        exits = np.array(list(results[OURS].values()))
        print(f"\npatience {PATIENCE}, {options.rows} rows, all at the same exits: mean depth "
              f"{(exits + 1).mean() / LAYERS:.3f}")  # fmt: skip
        times = peers.interleaved(started, options.rounds, options.steps)
        print(peers.table(times, OURS))
        for peer in started:
            peer.close()


def main() -> None:
    parser = peers.arguments(__doc__)
    parser.add_argument("--what", choices=("all", "depth", "peers"), default="all")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--length", type=int, default=64, help="tokens a row")
    options = parser.parse_args()
    if options.serve:
        return serve(options)
    print(peers.machine())
    print(f"{LAYERS} blocks of width {WIDTH}, {options.rows} rows of {options.length} tokens")
    if options.what in ("all", "peers"):
        against_torch(options)
    if options.what in ("all", "depth"):
        depth(options)


if __name__ == "__main__":
    main()
