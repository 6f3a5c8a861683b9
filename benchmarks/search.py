"""Architecture search: a race with Optuna and torch.

    python benchmarks/search.py --teacher FOLDER        # a BERT's HuggingFace folder

Both search the same space with multivariate TPE for students with random weights, which learn the
same hidden states of the same teacher on the same batches with the same rates. torch: the loop one
would write, transformers' BertModel in float32, the teacher in every step, every candidate to its
end. Ours: the stage `Search` as experiments/nas_kd.py has it, products in bfloat16, teacher states
stored, successive halving (--compute=float32 for the same products as torch). Printed: when ours
had the best reward that torch found, and when torch had it. experiments/nas_kd.py:table compares
the optimizers.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxkd.models import bert
from jaxkd.runs import runner
from jaxkd.search.reward import Measured, Reward


def race(teacher: str, candidates: int, rows: int, seeds: int, compute: str) -> None:
    """Prints when each side had the best reward that torch found."""
    from jaxkd.data.rows.text import MaskedText
    from jaxkd.runs.experiment import Experiment
    from jaxkd.search.latency import Latency
    from jaxkd.stages.load import Load
    from jaxkd.stages.search import Search
    from jaxkd.train.optimiser import AdamW

    text = MaskedText(length=64, tokenizer=teacher, rows=rows)
    loaded = Load(name=teacher, head="masked_lm", compute=compute)
    for seed in range(seeds):
        stage = Search(
            teacher="teacher", start="random", candidates=candidates, hand_chosen=False,
            optimiser=AdamW(learning_rate=5e-4, warmup=0.0, decay="constant", weight_decay=0.01),
            latency=Latency(head="bare", length=64),
        )  # fmt: skip
        experiment = Experiment(
            "race",
            text,
            {"teacher": loaded, "search": stage},
            (seed,),
        )
        with tempfile.TemporaryDirectory() as folder:
            place = pathlib.Path(folder)
            # As run.py does, but empty: candidates share programs, and nobody else's.
            jax.clear_caches()
            compilation_cache.reset_cache()
            jax.config.update("jax_compilation_cache_dir", str(place / "xla"))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
            began = time.perf_counter()
            done = runner.run(
                experiment,
                name="race",
                variant="x",
                command="",
                workdir=place,
                cache=place / "cache",
            )
            whole = time.perf_counter() - began
            record = json.loads((done / str(seed) / "search" / "done.json").read_text())
            ours = record["metrics"]["search"]
            setup = ours["seconds"] - sum(each["seconds"] for each in ours["candidates"])
            times = setup + np.cumsum([each["seconds"] for each in ours["candidates"]])
            curve = [
                (float(t), each["reward"])
                for t, each in zip(times, ours["candidates"], strict=True)
                if each["state"] == "complete"
            ]
            theirs = torch_search(teacher, text.open(place / "cache"), stage, candidates, seed)
        reached = max(reward for _, reward in theirs)
        when_theirs = next(t for t, reward in theirs if reward >= reached)
        when_ours = next((t for t, reward in curve if reward >= reached), float("nan"))
        best = max(reward for _, reward in curve)
        print(
            f"seed {seed}: torch's best reward {reached:.4f} after {when_theirs:.0f} s of "
            f"{theirs[-1][0]:.0f}; ours had it after {when_ours:.0f} s of {times[-1]:.0f}, best "
            f"{best:.4f}: {when_theirs / when_ours:.2f} times as fast to it, all {len(theirs)} "
            f"candidates {theirs[-1][0] / times[-1]:.2f} times. {ours['compilations']} programs "
            f"were compiled for {len(ours['candidates'])} shapes; the run with its start took "
            f"{whole:.0f} s.",
            flush=True,
        )


def torch_search(
    teacher: str, rows: Any, stage: Any, candidates: int, seed: int
) -> list[tuple[float, float]]:
    """(seconds since the start, reward) of each candidate of a plain loop."""
    import optuna
    import torch
    import transformers

    from jaxkd.data.rows.masking import Masking
    from jaxkd.distil.layer_map import pairs
    from jaxkd.search import space as spaces
    from jaxkd.search.teacher_states import share_of

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    began, finished = time.perf_counter(), []
    torch.manual_seed(seed)
    kept = share_of(rows, stage.share)
    feed = kept.training(seed=seed, batch_size=stage.batch_size, masking=Masking())
    count = max(1, len(kept.splits["train"]) // stage.batch_size)
    batches = [feed[i] for i in range(count)]
    held_out = list(rows.batches("validation", stage.batch_size, stage.validation_rows))
    steps = max(1, round(stage.epochs * count))
    large = transformers.BertModel.from_pretrained(teacher, add_pooling_layer=False).eval()
    depth = large.config.num_hidden_layers
    sizes = dict(layers=depth, width=large.config.hidden_size)
    sizes |= dict(heads=large.config.num_attention_heads)
    values = spaces.derived(bert.Config(feed_forward=large.config.intermediate_size, **sizes))

    def tensors(batch: Any) -> tuple[Any, Any]:
        return torch.tensor(np.asarray(batch.tokens)).long(), torch.tensor(np.asarray(batch.mask))

    def hidden(model: Any, tokens: Any, mask: Any) -> Any:
        return model(tokens, mask, output_hidden_states=True).hidden_states

    def timed(model: Any) -> float:
        tokens = torch.arange(stage.latency.length)[None] % large.config.vocab_size
        taken = []
        with torch.inference_mode():
            for _ in range(stage.latency.rounds + 2):
                start = time.perf_counter()
                model(tokens)
                taken.append(1000 * (time.perf_counter() - start))
        return statistics.median(taken[2:])

    def loss_of(student: Any, heads: Any, batch: Any) -> tuple[Any, Any]:
        tokens, mask = tensors(batch)
        with torch.no_grad():
            targets = hidden(large, tokens, mask)
        states = hidden(student, tokens, mask)
        total, unit = 0.0, 0.0
        for n, (i, layers) in enumerate(pairs("both", len(states) - 1, depth)):
            target = torch.cat([targets[j] for j in layers], -1)[mask]
            total = total + ((heads[n](states[i][mask]) - target) ** 2).mean()
            unit = unit + target.var(0, unbiased=False).mean()
        return total, unit

    def objective(trial: Any) -> float:
        chosen = {name: trial.suggest_categorical(name, each) for name, each in values.items()}
        if chosen["width"] % chosen["heads"]:
            raise optuna.TrialPruned
        config = transformers.BertConfig(
            vocab_size=large.config.vocab_size, hidden_size=chosen["width"],
            num_hidden_layers=chosen["layers"], num_attention_heads=chosen["heads"],
            intermediate_size=chosen["feed_forward"], hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        student = transformers.BertModel(config, add_pooling_layer=False)
        width = 2 * large.config.hidden_size
        heads = torch.nn.ModuleList(
            torch.nn.Linear(chosen["width"], width, bias=False) for _ in range(chosen["layers"])
        )
        params = [*student.parameters(), *heads.parameters()]
        optimiser = torch.optim.AdamW(params, lr=stage.optimiser.learning_rate, weight_decay=0.01)
        student.train()
        for step in range(steps):
            loss, _ = loss_of(student, heads, batches[step % count])
            optimiser.zero_grad()
            (loss / chosen["layers"]).backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            optimiser.step()
        student.eval()
        with torch.inference_mode():
            sums = np.sum([[float(x) for x in loss_of(student, heads, b)] for b in held_out], 0)
        measured = Measured(sums[0] / sums[1], timed(student))
        reward = Reward(timed(large), stage.alpha, stage.beta)(measured)
        finished.append((time.perf_counter() - began, reward))
        return reward

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(multivariate=True, seed=seed)
    )
    while len(finished) < candidates:
        study.optimize(objective, n_trials=1)
    return finished


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--rows", type=int, default=1600)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--compute", choices=("bfloat16", "float32"), default="bfloat16")
    args = parser.parse_args()
    race(args.teacher, args.candidates, args.rows, args.seeds, args.compute)


if __name__ == "__main__":
    main()
