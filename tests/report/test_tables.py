"""Facts about a report's tables: their numbers are the results'."""

import numpy as np
import pytest

from jaxkd.report import provenance, tables
from jaxkd.report.markup import Table
from jaxkd.report.write import summary


def column(table: Table, name: str) -> list[str]:
    place = table.header.index(name)
    return [row[place] for row in table.rows]


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


def test_outcome_shows_accuracy_in_percent_and_distance_under_the_unigram_line(results):
    for seed in results["models"]["teacher_plain"]["seeds"].values():
        seed["validation"] |= {"accuracy": 0.125, "loss": 6.0, "unigram": 6.75}
    table = tables.outcome(results)
    assert column(table, "accuracy [%]")[0] == "12.500 ± 0"
    assert column(table, "nats under unigram")[0] == "0.7500 ± 0"


def test_classifiers_have_no_perplexity_and_no_unigram_line(results):
    table = tables.outcome(results)
    assert {"perplexity", "nats under unigram"} <= set(table.header)
    assert "Nats under unigram" in table.caption
    results["data"]["classes"] = 2
    found = tables.outcome(results)
    assert set(table.header) - set(found.header) == {"perplexity", "nats under unigram"}
    assert "unigram" not in found.caption


def test_absent_metric_is_a_dash(results):
    for seed in results["models"]["student_plain"]["seeds"].values():
        del seed["validation"]["accuracy"]
    table = tables.outcome(results)
    place = list(results["models"]).index("student_plain")
    assert column(table, "accuracy [%]")[place] == "–"
    assert column(table, "KL to teacher [nats]")[0] == "–"  # a teacher has no teacher


def test_single_seed_has_no_plus_minus_anywhere(results):
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
    assert row["by seed"] == "0: -0.1000, 1: -0.2000, 2: +0.1000"
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
    assert table.rows[1][1:] == ("20.000 ± 0", "40.000 ± 0", "80.000 ± 0")


def test_terms_are_the_last_logged_ones_of_the_students_only(results):
    for seed in "012":
        log = results["curves"]["student_random"][seed]
        log.append({"step": 9999, "split": "train", "loss": 8.0, "mlm": 1.5, "soft_targets": 1.0})
    table = tables.terms(results)
    assert table.header == ("student", "objective", "MLM [nats]", "soft targets [nats]", "cosine")
    assert len(table.rows) == 3
    assert table.rows[2][1:4] == ("8.0000 ± 0", "1.5000 ± 0", "1.0000 ± 0")


def test_references_stand_beside_the_values_they_name(results):
    for seed in "012":
        log = results["curves"]["student_plain"][seed]
        log[:] = [{"step": k, "split": "train", "loss": v} for k, v in ((1, 20.0), (2, 10.0))]
    table = tables.references(results)
    assert column(table, "original") == ["6.5397", "19.95", "20.06"]
    assert column(table, "ours")[1:] == ["10.000 ± 0", "15.000 ± 0"]  # the last; the mean
    mean = losses(results, "teacher_plain").mean()
    assert float(column(table, "ours")[0].split()[0]) == pytest.approx(mean, abs=5e-3)


def test_seconds_are_summed_over_stages_and_seeds(results):
    table = provenance.stages(results)
    assert table.rows[-1][2:4] == ("460 ± 20", "1,380.0")  # 440 460 480 a seed
    assert column(table, "resumed at step") == ["1", "–", ""]


def test_exported_files_stand_with_who_opened_them_and_the_worst_difference(results):
    one = {"max_abs_difference": 2e-6, "shapes": [[3, 16], [1, 16]], "megabytes": 8.0}
    opened = {"huggingface": one | {"transformers": "5.1", "torch": "2.13"}}
    again = {"huggingface": one | {"transformers": "5.1", "max_abs_difference": 7e-6}}
    results["exports"] = {"saved": {"0": opened, "1": again, "2": opened}}
    table = provenance.exports(results)
    assert table.rows == (
        ("saved", "huggingface", "transformers 5.1", "8.0000 ± 0", "7.0e-06", "3 x 16, 1 x 16"),
    )
    del results["models"]
    results["report"] = {}
    assert "| saved | huggingface |" in summary(results)


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
