"""Architecture search: optimisers where the best is known, and a race with Optuna and torch.

    python benchmarks/search.py table RESULTS.json --plot PNG  # of a run that measured a space
    python benchmarks/search.py race --teacher FOLDER        # a BERT's HuggingFace folder

table: results.json of a run of experiments/nas_kd.py in which every candidate was measured
(--config.stages.search.candidates=1000 --config.stages.search.halving=0
--config.stages.search.max_time=0). Printed for each optimiser: candidates until one is within 2% of
the best reward, medians over seeds, and the regret after a tenth and a quarter of the space: exact,
since the best is known. --max-time leaves out candidates that took more than that share of the
teacher's time. An optimiser takes no time to be measured here: rewards are looked up.

race: both search the same space with multivariate TPE for students with random weights, which learn
the same hidden states of the same teacher on the same batches with the same rates. torch: the loop
one would write, transformers' BertModel in float32, the teacher in every step, every candidate to
its end. Ours: the stage `Search` as experiments/nas_kd.py has it, products in bfloat16, teacher
states stored, successive halving (--compute=float32 for the same products as torch). Printed: when
ours had the best reward that torch found, and when torch had it.
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

from jaxkd.models import families
from jaxkd.report import plots
from jaxkd.runs import runner
from jaxkd.search.optimisers import Outcome
from jaxkd.search.reward import Measured, Reward
from jaxkd.search.space import Space
from jaxkd.stages.search_run import OPTIMIZERS

COMPARED = ("random", "evolution", "tpe", "controller")
WITHIN = 0.02


def table(file: pathlib.Path, seeds: int, plot: pathlib.Path | None, max_time: float) -> None:
    """Prints how soon each optimiser finds a candidate within WITHIN of the best."""
    by_seed = next(iter(json.loads(file.read_text())["search"].values()))
    run = next(iter(by_seed.values()))
    complete = {
        each["key"]: each
        for each in run["candidates"]
        if each["state"] == "complete"
        and (not max_time or each["milliseconds"] <= max_time * each["teacher_milliseconds"])
    }
    rewards = {key: each["reward"] for key, each in complete.items()}
    best, values = max(rewards.values()), {n: tuple(v) for n, v in run["space"].items()}
    space = Space(_widest(values), values, allows=_only(complete, values))
    median, near = np.median(list(rewards.values())), (1 - WITHIN) * best
    print(f"{len(rewards)} candidates, best reward {best:.4f}, median {median:.4f}")
    print(f"within {WITHIN:.0%} of the best: {sum(r >= near for r in rewards.values())}")
    curves: dict[str, list[list[float]]] = {}
    for name in COMPARED:
        make = OPTIMIZERS[name]
        curves[name] = [
            _rewards_so_far(make(space, seed), complete, space) for seed in range(seeds)
        ]
    needed = {
        name: [_first(curve, (1 - WITHIN) * best) for curve in each]
        for name, each in curves.items()
    }
    by_chance = statistics.median(needed["random"])
    for name, each in needed.items():
        median = statistics.median(each)
        regret = [
            statistics.fmean(
                best - curve[max(1, len(rewards) // share) - 1] for curve in curves[name]
            )
            for share in (10, 4)
        ]
        print(
            f"{name:11s} candidates to within {WITHIN:.0%}: median {median:g} {sorted(each)}, "
            f"{median / by_chance:.2f} of random's; mean regret after 1/10 {regret[0]:.4f}, after "
            f"1/4 {regret[1]:.4f}"
        )
    if plot is not None:
        plot.write_bytes(_regret_plot(curves, best))


def _regret_plot(curves: dict[str, list[list[float]]], best: float) -> bytes:
    """How far the best candidate so far is from the best of all: medians, all seeds in the band."""
    title = f"Distance from the best of {len(curves['random'][0])} candidates"
    figure = plots.new_figure({}, f"{title}, {len(curves['random'])} seeds")
    axes = figure.subplots()
    for (name, each), colour, dashes in zip(
        curves.items(), plots.COLOURS, plots.DASHES, strict=False
    ):
        regret = best - np.array(each)
        numbers = np.arange(1, regret.shape[1] + 1)
        axes.step(
            numbers, np.median(regret, 0), where="post", color=colour, linestyle=dashes, label=name
        )
        axes.fill_between(
            numbers, regret.min(0), regret.max(0), step="post", color=colour, alpha=0.12
        )
    axes.set_xlabel("candidates measured")
    axes.set_ylabel("regret: best reward - best so far")
    axes.set_xscale("log")
    return plots.finished(figure, axes)


def _widest(values: dict[str, tuple[Any, ...]]) -> families.Config:
    from jaxkd.models.bert import Config

    return Config(**{name: each[-1] for name, each in values.items() if name != "activation"})


def _only(complete: dict[str, Any], values: dict[str, tuple[Any, ...]]) -> Any:
    """Refuses what was not measured."""
    known = {tuple(each["candidate"][name] for name in values) for each in complete.values()}

    def check(config: families.Config) -> None:
        if tuple(getattr(config, name) for name in values) not in known:
            raise ValueError("not measured")

    return check


def _rewards_so_far(optimiser: Any, complete: dict[str, Any], space: Space) -> list[float]:
    best, curve = -np.inf, []
    for number in range(len(complete)):
        candidate = optimiser.suggest(number)
        each = complete[space.key(candidate)]
        share = each["milliseconds"] / each["teacher_milliseconds"]
        optimiser.observe(candidate, Outcome(each["reward"], each["loss"], share))
        best = max(best, each["reward"])
        curve.append(best)
    return curve


def _first(curve: list[float], value: float) -> int:
    return next((i for i, reward in enumerate(curve, 1) if reward >= value), len(curve))


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
    shape = _widest({n: (v,) for n, v in sizes.items()} | {
        "feed_forward": (large.config.intermediate_size,)
    })  # fmt: skip
    values = spaces.derived(shape)

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
    made = parser.add_subparsers(dest="what", required=True)
    of_table = made.add_parser("table")
    of_table.add_argument("results", type=pathlib.Path)
    of_table.add_argument("--seeds", type=int, default=5)
    of_table.add_argument("--plot", type=pathlib.Path, help="PNG file of the regret to be written")
    of_table.add_argument("--max-time", type=float, default=0.0, help="0: any time")
    of_race = made.add_parser("race")
    of_race.add_argument("--teacher", required=True)
    of_race.add_argument("--candidates", type=int, default=16)
    of_race.add_argument("--rows", type=int, default=1600)
    of_race.add_argument("--seeds", type=int, default=1)
    of_race.add_argument("--compute", choices=("bfloat16", "float32"), default="bfloat16")
    args = parser.parse_args()
    if args.what == "table":
        table(args.results, args.seeds, args.plot, args.max_time)
    else:
        race(args.teacher, args.candidates, args.rows, args.seeds, args.compute)


if __name__ == "__main__":
    main()
