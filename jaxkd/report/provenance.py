"""A report's tables of what was read, what ran where, and what was written for others."""

from collections.abc import Mapping

from jaxkd.report import spread
from jaxkd.report.spread import ABSENT, mean_std, number
from jaxkd.report.tables import Table, make_table, over_seeds, plain


def data(results: Mapping) -> Table:
    """What the models were trained and evaluated on."""
    given = results.get("data") or {}
    rows = [[key, plain(given.get(key))] for key in ("corpus", "origin", "tokenizer", "vocabulary")]
    rows.append(["tokens a row", plain(given.get("length"))])
    for key, what in (("rows", "rows"), ("unigram_nats", "unigram cross-entropy [nats]")):
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
    """Seconds a stage, and all together."""
    rows, given = [], results.get("stages") or {}
    for name, stage in given.items():
        took = list((stage.get("seconds") or {}).values())
        resumed = stage.get("resumed")
        rows.append(
            [
                name,
                stage.get("kind") or ABSENT,
                mean_std(took, of=len(spread.seeds(results))),
                f"{sum(took):,.1f}" if took else ABSENT,
                ABSENT if resumed is None else str(sum(resumed.values())),
            ]
        )
    by_seed = [stage.get("seconds") or {} for stage in given.values()]
    whole = set.intersection(*map(set, by_seed)) if by_seed else ()  # seeds that ran every stage
    a_seed = [sum(stage[seed] for stage in by_seed) for seed in sorted(whole)]
    total = sum(sum(stage.values()) for stage in by_seed)
    of = len(spread.seeds(results))
    all_seeds = f"{total:,.1f}" if total else ABSENT
    rows.append(["all stages", "", mean_std(a_seed, of=of), all_seeds, ""])
    header = ("stage", "kind", "seconds a seed", "seconds, all seeds", "times resumed")
    return make_table(results, header, rows, f"Wall-clock time. {over_seeds(results)}")


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
