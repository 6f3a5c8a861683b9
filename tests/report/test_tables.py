"""Facts about a report's tables: their numbers are the results'."""

import numpy as np
import pytest

from jaxkd.report import provenance, tables
from jaxkd.report.markup import Table
from jaxkd.report.write import summary


def column(table: Table, name: str) -> list[str]:
    index = table.header.index(name)
    return [row[index] for row in table.rows]


def losses(results: dict, model: str, split: str = "validation") -> np.ndarray:
    return np.array([s[split]["loss"] for s in results["models"][model]["seeds"].values()])


def test_outcome_holds_mean_and_spread_of_the_results(results):
    table = tables.outcome(results)
    for row, model in zip(table.rows, results["models"], strict=True):
        mean, _, std = row[table.header.index("validation loss [nats]")].split()
        expected = losses(results, model)
        decimals = len(mean.split(".")[1])
        assert mean == f"{expected.mean():.{decimals}f}"
        assert std == f"{expected.std(ddof=1):.{decimals}f}"


def test_outcome_shows_fractions_in_percent(results):
    for seed in results["models"]["teacher_plain"]["seeds"].values():
        seed["validation"] |= {"accuracy": 0.125, "under_unigram": 0.75}
    table = tables.outcome(results)
    assert column(table, "accuracy [%]")[0] == "12.50 ± 0"
    assert column(table, "under the unigram line [nats]")[0] == "0.750 ± 0"
    assert "Under the unigram line" in table.caption


def test_a_new_metric_needs_no_report(results):
    """Titles, units and order are the file's; one without a description has its name."""
    results["metrics"] = {
        "mcc": {"title": "MCC", "unit": "", "higher_is_better": True},
        "wer": {"title": "words wrong", "unit": "%", "higher_is_better": False},
        "hidden": {"title": "hidden", "columns": "none"},
    }
    for model in results["models"].values():
        for seed in model["seeds"].values():
            seed["validation"] = {"other_one": 2.0, "wer": 0.5, "mcc": 0.25, "hidden": 1.0}
    table = tables.outcome(results)
    assert table.header[-3:] == ("validation MCC", "words wrong [%]", "other one")
    assert table.rows[0][-3:] == ("0.250 ± 0", "50.00 ± 0", "2.000 ± 0")


def test_short_tables_leave_out_what_is_for_the_report(results):
    assert "perplexity" in tables.outcome(results).header
    short = tables.outcome(results, compact=True).header
    assert not {"perplexity", "width", "MB", "steps"} & set(short)


def test_the_majority_class_is_a_row_of_classifiers(results):
    results["metrics"]["majority"] = {
        "title": "always the most frequent class", "unit": "%", "columns": "none",
        "baseline_of": "accuracy",
    }  # fmt: skip
    for model in results["models"].values():
        for seed in model["seeds"].values():
            seed["validation"]["majority"] = 0.5092
    table = tables.outcome(results)
    assert len(table.rows) == len(results["models"]) + 1
    row = dict(zip(table.header, table.rows[-1], strict=True))
    assert row.pop("model") == "always the most frequent class"
    assert row.pop("accuracy [%]") == "50.92" and set(row.values()) == {"–"}


def test_models_of_unlike_steps_are_marked(results):
    assert "unlike" not in tables.outcome(results).caption
    for log in results["curves"]["student_random"].values():
        log.append({"step": 2400, "split": "train", "loss": 1.0})
    table = tables.outcome(results)
    assert column(table, "steps") == ["1,200"] * 4 + ["2,400"]
    assert "unlike numbers of steps" in table.caption
    row = tables.comparisons(results).rows[1]
    assert row[1].endswith("(1,200 and 2,400 steps)")
    assert "steps)" not in tables.comparisons(results).rows[0][1]


def test_absent_metric_is_a_dash(results):
    for seed in results["models"]["student_plain"]["seeds"].values():
        del seed["validation"]["accuracy"]
    table = tables.outcome(results)
    index = list(results["models"]).index("student_plain")
    assert column(table, "accuracy [%]")[index] == "–"
    assert column(table, "KL to teacher [nats]")[0] == "–"  # a teacher has no teacher


def test_single_seed_has_no_plus_minus_anywhere_and_says_so_in_a_few_words(results):
    results["seeds"] = [0]
    report = results["report"]
    made = [tables.outcome(results), tables.comparisons(results), tables.terms(results)]
    made += [
        tables.references(results),
        *(tables.equal_steps(results, c) for c in report["curves"]),
    ]
    for stage in results["stages"].values():
        stage["seconds"] = {"0": 5.0}
    made.append(provenance.stages(results))
    for table in made:
        assert all("±" not in cell for row in table.rows for cell in row)
    assert all("One seed" in table.caption for table in (made[0], made[2], made[-1]))


def test_comparison_by_hand(results):
    for seed, (one, other) in {"0": (6.0, 6.1), "1": (6.1, 6.3), "2": (6.2, 6.1)}.items():
        results["models"]["student_robust"]["seeds"][seed]["validation"]["loss"] = one
        results["models"]["student_plain"]["seeds"][seed]["validation"]["loss"] = other
    table = tables.comparisons(results)
    row = dict(zip(table.header, table.rows[0], strict=True))
    # differences -0.1 -0.2 +0.1: mean -0.0667, std 0.1528, standard error 0.0882,
    # times 4.3027 = 0.3795, so from -0.446 to +0.313
    assert row["by seed"] == "0: -0.100, 1: -0.200, 2: +0.100"
    assert row["mean ± std"] == "-0.07 ± 0.15"
    assert row["seeds with the mean's sign"] == "2 of 3"
    assert row["95% interval"] == "-0.45 to +0.31"
    assert row["interval contains 0"] == "yes"


def test_different_teachers_are_named_only_where_the_number_depends_on_them(results):
    first, second = results["report"]["curves"]
    assert "different teachers" in tables.equal_steps(results, first).caption
    assert "different teachers" not in tables.equal_steps(results, second).caption
    del results["report"]["comparisons"][2]  # agreement; the others are losses on the text
    assert "different teachers" not in tables.comparisons(results).caption


def test_equal_steps_are_read_at_steps_that_all_arms_have(results):
    results["curves"] = {
        "teacher_plain": {
            s: [{"step": k, "split": "train", "loss": float(k)} for k in (10, 20, 30, 40, 80)]
            for s in "012"
        },
        "teacher_robust": {
            s: [{"step": k, "split": "train", "loss": 2.0 * k} for k in (10, 20, 40)] for s in "012"
        },
    }
    spec = {"models": ["teacher_plain", "teacher_robust"], "split": "train", "metric": "loss"}
    table = tables.equal_steps(results, spec)
    # 80 and 30 are one arm's alone; 75% of 40 is 30, the latest shared step up to it is 20
    assert table.header == ("model", "step 10 (25%)", "step 20 (50%)", "step 40 (100%)")
    assert table.rows[1][1:] == ("20.00 ± 0", "40.00 ± 0", "80.00 ± 0")


def test_terms_are_the_last_logged_ones_of_the_students_only(results):
    for seed in "012":
        log = results["curves"]["student_random"][seed]
        log.append({"step": 9999, "split": "train", "loss": 8.0, "mlm": 1.5, "soft_targets": 1.0})
    table = tables.terms(results)
    assert table.header == ("student", "objective", "MLM [nats]", "soft targets [nats]", "cosine")
    assert len(table.rows) == 3
    assert table.rows[2][1:4] == ("8.000 ± 0", "1.500 ± 0", "1.000 ± 0")


def test_references_stand_beside_the_values_they_name(results):
    for seed in "012":
        log = results["curves"]["student_plain"][seed]
        log[:] = [{"step": k, "split": "train", "loss": v} for k, v in ((1, 20.0), (2, 10.0))]
    table = tables.references(results)
    assert column(table, "original") == ["6.5397", "19.95", "20.06"]
    assert column(table, "ours")[1:] == ["10.00 ± 0", "15.00 ± 0"]  # the last; the mean
    mean = losses(results, "teacher_plain").mean()
    assert float(column(table, "ours")[0].split()[0]) == pytest.approx(mean, abs=5e-3)


def test_references_of_fractions_are_shown_in_percent(results):
    results["report"]["references"] = [
        {"what": "a", "original": 0.911, "model": "teacher_plain", "metric": "accuracy"}
    ]
    assert tables.references(results).rows[0][1] == "91.1"


@pytest.mark.parametrize(
    "data, visible",
    [
        ({"corpus": "WikiText-2", "wanted": "WikiText-2"}, True),
        ({"corpus": "ALFRED, both", "expected_corpus": "ALFRED"}, True),
        ({"corpus": "reviews.csv", "wanted": "SST-2"}, False),
        ({"corpus": "WikiText-2", "wanted": "WikiText-2", "embedded": True}, False),
    ],
)
def test_an_originals_numbers_stand_beside_its_own_corpus_only(results, data, visible):
    results["data"] = data
    assert bool(tables.references(results).rows) == visible


def test_seconds_are_summed_over_stages_and_seeds(results):
    table = provenance.stages(results)
    assert table.rows[-1][2:4] == ("460 ± 20", "1,380.0")  # 440 460 480 a seed
    assert column(table, "resumed at step") == ["1", "–", ""]


def test_exported_files_stand_with_who_opened_them_and_the_worst_difference(results):
    one = {"max_abs_difference": 2e-6, "shapes": [[3, 16], [1, 16]], "megabytes": 8.0}
    opened = {"huggingface": one | {"transformers": "5.1", "torch": "2.13"}}
    again = {"huggingface": one | {"transformers": "5.1", "max_abs_difference": 7e-6}}
    int8 = one | {"onnxruntime": "1.31", "metric": "accuracy", "ours": 0.75, "milliseconds": 2.0}
    for seed, (score, kept) in enumerate([(0.75, True), (0.74, False), (0.76, True)]):
        each = again if seed == 1 else opened
        scored = each | {"onnx_int8": int8 | {"score": score, "kept": kept}}
        results.setdefault("exports", {}).setdefault("saved", {})[str(seed)] = scored
    table = provenance.exports(results)
    compared = ("8.000 ± 0", "7.0e-06", "3 x 16, 1 x 16")
    assert table.rows[0] == ("saved", "huggingface", "transformers 5.1", *compared, *"––––")
    assert table.rows[1][2] == "onnxruntime 1.31"
    assert table.rows[1][6:] == ("75.0 ± 1.0", "75.00 ± 0", "2.000 ± 0", "2 of 3")
    del results["models"]
    results["report"] = {}
    assert "| saved | huggingface |" in summary(results)


def test_a_file_that_no_other_library_opened_was_read_back(results):
    one = {"read_back": "equal", "not_compared": "transformers on torch", "megabytes": 8.0}
    results["exports"] = {"saved": {"0": {"huggingface": one}}}
    (row,) = provenance.exports(results).rows
    assert row[2:] == ("read back: equal", "8.000 (n = 1)", "–", "–")


def test_labels_are_counted_and_named_in_the_table_of_the_data(results):
    results["data"] |= {
        "labels": {"good": 3, "bad": 1},
        "most_frequent_class": "good",
        "share_of_most_frequent_class": {"train": 0.75, "validation": 0.5},
    }
    rows = dict(provenance.data(results).rows)
    assert rows["training rows labelled good"] == "3" and rows["training rows labelled bad"] == "1"
    assert rows["most frequent class"] == "good"
    assert rows["train share of most frequent class"] == "0.750"
    assert not any("{" in value for value in rows.values())


def test_empty_results_give_tables_without_numbers():
    for make in (
        tables.outcome,
        tables.comparisons,
        tables.terms,
        tables.references,
        provenance.data,
    ):
        table = make({})
        assert all(cell in {"–", *table.header} or column == 0 for row in table.rows
                   for column, cell in enumerate(row))  # fmt: skip


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda r: r["curves"][0]["models"].append("studnet_plain"), "mean 'student_plain'"),
        (lambda r: r["comparisons"][1].update(baseline="nobody"), r"comparisons\[1\] names"),
        (lambda r: r["references"][0].update(model="techer_plain"), "mean 'teacher_plain'"),
        (lambda r: r["references"][0].pop("original"), r"references\[0\] has no 'original'"),
    ],
)
def test_a_model_the_results_lack_is_named(results, change, message):
    change(results["report"])
    with pytest.raises(ValueError, match=message):
        tables.check(results)
