"""A report's tables of what was read, what ran where, and what was written for others."""

import statistics
from collections.abc import Mapping

from jaxkd.report import spread
from jaxkd.report.markup import Table
from jaxkd.report.spread import ABSENT, mean_std, number
from jaxkd.report.tables import make_table, over_seeds, plain

SPEEDS = {  # column -> what is logged, and by how much it is multiplied
    "tokens/s": ("tokens_per_second", 1.0),
    "useful TFLOP/s": ("teraflops_per_second", 1.0),
    "MFU [%]": ("mfu", 100.0),
}


def data(results: Mapping) -> Table:
    """What the models were trained and evaluated on."""
    given = results.get("data") or {}
    rows = [[key, plain(given.get(key))] for key in ("corpus", "origin", "tokenizer", "vocabulary")]
    rows.append(["tokens a row", plain(given.get("length"))])
    told = (
        "cross-entropy of the labels' shares" if given.get("classes") else "unigram cross-entropy"
    )
    for key, what in (("rows", "rows"), ("unigram_nats", f"{told} [nats]")):
        rows += [
            [f"{split} {what}", plain(value) if key == "rows" else number(float(value))]
            for split, value in (given.get(key) or {}).items()
        ]
    return make_table(results, ("data", "value"), rows, "What was read.")


def where(results: Mapping) -> Table:
    """What ran where."""
    given = results.get("where") or {}
    keys = ("device", "devices", "processor", "cores", "memory_gb", "python", "revision")
    rows = [[key.replace("_gb", " [GB]"), plain(given.get(key))] for key in keys]
    rows += [[name, str(version)] for name, version in (given.get("versions") or {}).items()]
    return make_table(results, ("where", "value"), rows, "Machine and versions of this run.")


def stages(results: Mapping) -> Table:
    """Seconds a stage, and all together; how fast trainings were."""
    rows, given = [], results.get("stages") or {}
    for name, stage in given.items():
        took = list((stage.get("seconds") or {}).values())
        resumed = stage.get("resumed")
        steps = [str(step) for step in (resumed or {}).values() if step]
        rows.append(
            [
                name,
                stage.get("kind") or ABSENT,
                mean_std(took, of=len(spread.seeds(results))),
                f"{sum(took):,.1f}" if took else ABSENT,
                ", ".join(steps) or ABSENT,
                *(_speed(results, name, *kind) for kind in SPEEDS.values()),
            ]
        )
    by_seed = [stage.get("seconds") or {} for stage in given.values()]
    whole = set.intersection(*map(set, by_seed)) if by_seed else ()  # seeds that ran every stage
    a_seed = [sum(stage[seed] for stage in by_seed) for seed in sorted(whole)]
    total = sum(sum(stage.values()) for stage in by_seed)
    of = len(spread.seeds(results))
    all_seeds = f"{total:,.1f}" if total else ABSENT
    rows.append(["all stages", "", mean_std(a_seed, of=of), all_seeds, "", *[""] * len(SPEEDS)])
    header = ("stage", "kind", "seconds a seed", "seconds, all seeds", "resumed at step", *SPEEDS)
    caption = (
        f"Wall-clock time. {over_seeds(results)} Speeds: the median window of each training. "
        "TFLOP/s: products of matrices that were needed, without padding; MFU: their share of what "
        "the machine could do."
    )
    return make_table(results, header, rows, caption)


def _speed(results: Mapping, stage: str, metric: str, scale: float) -> str:
    """Of each seed the median over its windows: the first one compiles."""
    found = spread.curve(results, stage, "train", metric).values()
    medians = [scale * statistics.median(steps.values()) for steps in found]
    return mean_std(medians, of=len(spread.seeds(results))) if medians else ABSENT


def exports(results: Mapping) -> Table:
    """Each exported file, who opened it, and how far its numbers were from ours."""
    rows = []
    for name, by_seed in (results.get("exports") or {}).items():
        for kind in next(iter(by_seed.values()), {}):
            told = [export[kind] for export in by_seed.values() if kind in export]
            worst = max(one["max_abs_difference"] for one in told)
            sizes = [one["megabytes"] for one in told if "megabytes" in one]
            opener = "onnxruntime" if kind == "onnx" else "transformers"
            shapes = ", ".join(f"{rows} x {length}" for rows, length in told[0]["shapes"])
            rows.append(
                [
                    name,
                    kind,
                    f"{opener} {told[0].get(opener, '')}".strip(),
                    mean_std(sizes, of=len(spread.seeds(results))) if sizes else ABSENT,
                    f"{worst:.1e}",
                    shapes,
                ]
            )
    header = ("stage", "format", "opened by", "MB", "largest difference", "rows x tokens compared")
    caption = "Outputs of the written files against ours, the largest over all seeds."
    return make_table(results, header, rows, caption)
