"""A report's tables of the data, the machine, the stages, the exported files, and its examples."""

import statistics
from collections.abc import Mapping, Sequence

from jaxkd.report import spread
from jaxkd.report.described import about, factor, label
from jaxkd.report.markup import Section, Table
from jaxkd.report.spread import ABSENT, at, mean_std, number
from jaxkd.report.tables import make_table, over_seeds, plain

SPEEDS = {  # column -> what is logged, and by how much it is multiplied
    "tokens/s": ("tokens_per_second", 1.0),
    "useful TFLOP/s": ("teraflops_per_second", 1.0),
    "MFU [%]": ("mfu", 100.0),
}


def data(results: Mapping) -> Table:
    """What the models were trained and evaluated on."""
    described = dict(results.get("data") or {})
    for key in ("embedded", "wanted", "expected_corpus", "widths"):
        described.pop(key, None)
    classes = described.get("classes")
    line = "cross-entropy of the labels' frequencies" if classes else "unigram cross-entropy"
    titles = {"length": "tokens a row", "rows": "rows", "unigram_nats": f"{line} [nats]"}
    first = ("corpus", "origin", "tokenizer", "vocabulary", "length", "rows", "unigram_nats")
    rows = []
    for key in (*first, *(k for k in described if k not in first)):
        value, title = described.get(key), titles.get(key, key.replace("_", " "))
        if key == "labels":  # of the training rows
            rows += [[f"training rows labelled {name}", plain(n)] for name, n in value.items()]
        elif isinstance(value, Mapping):  # by split
            rows += [[f"{split} {title}", _value(each)] for split, each in value.items()]
        elif value not in (None, "", [], ()):
            rows.append([title, _value(value)])
        elif key in first[:4]:
            rows.append([title, ABSENT])
    return make_table(results, ("data", "value"), rows, "What was read.")


def _value(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return plain(value)


def examples(results: Mapping) -> list[Section]:
    """Rows a student gets wrong and its teacher right, where the run kept some; of one seed."""
    made = []
    for model, by_seed in (results.get("examples") or {}).items():
        seed, splits = next(iter(by_seed.items()))
        for split, errors in splits.items():
            name, teacher = label(results, model), at(results, "models", model, "teacher")
            heading = f"What “{name}” gets wrong and its teacher right"
            rows_text = f"{errors['count']:,} of {errors['rows']:,} rows of the {split} split"
            text = f"{rows_text} are wrong in “{name}” and right in “{label(results, teacher)}” "
            text += f"(seed {seed})."
            if not errors["examples"]:
                made.append(Section(heading, (text,)))
                continue
            rows = [
                [
                    str(each["index"]),
                    each["text"] if each["text"] is not None else ABSENT,
                    each["label"],
                    f"{each['student']} ({100 * each['student_probability']:.0f}%)",
                    f"{each['teacher']} ({100 * each['teacher_probability']:.0f}%)",
                ]
                for each in errors["examples"]
            ]
            caption = "In brackets: the label's probability. Those where the two differ most."
            header = ("row", "text", "label", "student", "teacher")
            made.append(Section(heading, (text, make_table(results, header, rows, caption))))
    return made


def where(results: Mapping) -> Table:
    """The machine and the versions."""
    described = results.get("where") or {}
    keys = ("device", "devices", "processor", "cores", "memory_gb", "python", "revision")
    rows = [[key.replace("_gb", " [GB]"), plain(described.get(key))] for key in keys]
    rows += [[name, str(version)] for name, version in (described.get("versions") or {}).items()]
    return make_table(results, ("where", "value"), rows, "Machine and versions of this run.")


def stages(results: Mapping) -> Table:
    """Seconds a stage, and all together; how fast trainings were."""
    rows, described = [], results.get("stages") or {}
    for name, stage in described.items():
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
    by_seed = [stage.get("seconds") or {} for stage in described.values()]
    whole = set.intersection(*map(set, by_seed)) if by_seed else ()  # seeds that ran every stage
    a_seed = [sum(stage[seed] for stage in by_seed) for seed in sorted(whole)]
    total = sum(sum(stage.values()) for stage in by_seed)
    of = len(spread.seeds(results))
    all_seeds = f"{total:,.1f}" if total else ABSENT
    rows.append(["all stages", "", mean_std(a_seed, of=of), all_seeds, "", *[""] * len(SPEEDS)])
    header = ("stage", "kind", "seconds a seed", "seconds, all seeds", "resumed at step", *SPEEDS)
    # Earlier runs counted padding; their results files say so.
    counted = "all positions, padding too" if results.get("speed_counts_padding") else "no padding"
    caption = (
        f"Wall-clock time. {over_seeds(results)} Speeds: the median window of each training. "
        f"tokens/s: {counted}. TFLOP/s: matrix products that were needed, without padding; MFU: "
        "their fraction of the machine's peak."
    )
    return make_table(results, header, rows, caption)


def _speed(results: Mapping, stage: str, metric: str, scale: float) -> str:
    """Of each seed the median over its windows: the first one compiles."""
    curves = spread.curve(results, stage, "train", metric).values()
    medians = [scale * statistics.median(steps.values()) for steps in curves]
    return mean_std(medians, of=len(spread.seeds(results))) if medians else ABSENT


READ_BACK = "read back: equal"  # where the library it is for was not there


def exports(results: Mapping) -> Table:
    """Each exported file, who opened it, and how far its numbers were from ours."""
    rows = []
    every = [one for by_seed in (results.get("exports") or {}).values() for one in by_seed.values()]
    scored = any("score" in one for export in every for one in export.values())
    for name, by_seed in (results.get("exports") or {}).items():
        for kind in next(iter(by_seed.values()), {}):
            files = [export[kind] for export in by_seed.values() if kind in export]
            opened = [one for one in files if "not_compared" not in one]
            worst = max((one["max_abs_difference"] for one in opened), default=None)
            sizes = [one["megabytes"] for one in files if "megabytes" in one]
            first = (opened or files)[0]
            opener = "transformers" if "transformers" in first else "onnxruntime"
            shapes = ", ".join(f"{rows} x {length}" for rows, length in first.get("shapes", ()))
            rows.append(
                [
                    name,
                    kind,
                    f"{opener} {first.get(opener, '')}".strip() if opened else READ_BACK,
                    mean_std(sizes, of=len(spread.seeds(results))) if sizes else ABSENT,
                    ABSENT if worst is None else f"{worst:.1e}",
                    shapes or ABSENT,
                    *(_measured(results, files) if scored else ()),
                ]
            )
    header = ("stage", "format", "opened by", "MB", "largest difference", "rows x tokens compared")
    caption = "Outputs of the written files against ours, the largest over all seeds."
    if scored:
        header = (*header, "score", "ours", "ms a row", "kept")
        caption += (
            " Scores: of the task's primary metric, by the file and by our model on the same rows; "
            "ms: one row at a time. int8 is kept where it loses no more than the stage allows, in "
            "each seed."
        )
    return make_table(results, header, rows, caption)


def _measured(results: Mapping, files: Sequence[Mapping]) -> list[str]:
    """Scores and times of a format's files, where its stage measured them."""
    scored = [one for one in files if "score" in one]
    if not scored:
        return [ABSENT] * 4
    scale = factor(about(results, scored[0]["metric"])["unit"])
    of = len(spread.seeds(results))
    kept = [one["kept"] for one in scored if "kept" in one]
    return [
        mean_std((scale * one["score"] for one in scored), of=of),
        mean_std((scale * one["ours"] for one in scored), of=of),
        mean_std((one["milliseconds"] for one in scored), of=of),
        f"{sum(kept)} of {len(kept)}" if kept else ABSENT,
    ]
