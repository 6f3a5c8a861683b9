"""Facts about values over seeds: what ± says, what an interval is, and what absent looks like."""

import math

import numpy as np
import pytest

from jaxkd.report import spread


def test_spread_is_the_sample_standard_deviation_to_two_digits():
    # mean 2, deviations -1 0 1, sum of squares 2, / (3 - 1) = 1
    assert spread.mean_std([1.0, 2.0, 3.0]) == "2.0 ± 1.0"
    numbers = [6.0123, 6.0456, 6.0311]
    assert spread.mean_std(numbers) == f"{np.mean(numbers):.3f} ± {np.std(numbers, ddof=1):.3f}"
    assert spread.mean_std([100.0, 300.0]) == "200 ± 141"  # 141.42: no digits after the point


def test_one_value_has_no_spread():
    assert spread.mean_std([6.0123]) == "6.012"


def test_no_value_is_a_dash_and_not_zero_or_nan():
    assert spread.mean_std([]) == "–"
    assert spread.number(None) == "–"
    assert spread.number(0.0) == "0"


def test_a_value_that_is_not_finite_is_said_and_not_averaged_away():
    assert spread.mean_std([6.0, math.nan]) == "not finite"
    assert spread.interval([1.0, math.inf]) is None


def test_missing_seeds_are_counted_in_the_cell():
    assert spread.mean_std([1.0, 3.0], of=3) == "2.0 ± 1.4 (n = 2)"
    assert spread.mean_std([1.0], of=3) == "1.000 (n = 1)"


def test_equal_values_have_spread_zero():
    assert spread.mean_std([0.1, 0.1, 0.1]).endswith(" ± 0")


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 30])
@pytest.mark.parametrize("inside", [0.5, 0.95, 0.99])
def test_t_quantile_equals_scipys(inside, degrees):
    stats = pytest.importorskip("scipy.stats")  # scikit-learn brings it
    expected = stats.t.ppf(0.5 + inside / 2, degrees)
    assert spread.t_quantile(inside, degrees) == pytest.approx(expected, rel=1e-12)


def test_interval_is_the_paired_t_interval_by_hand():
    # mean 2, std 1, standard error 1 / sqrt(3), t(0.975, 2) = 4.302653 (any table)
    half = 4.302653 / math.sqrt(3)
    assert spread.interval([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half), rel=1e-6)
    assert spread.interval([1.0]) is None


def test_differences_pair_equal_seeds_only(results):
    seeds = results["models"]["student_robust"]["seeds"]
    seeds["0"]["validation"]["loss"] = 6.5
    del seeds["1"]
    results["models"]["student_plain"]["seeds"]["0"]["validation"]["loss"] = 6.25
    differences = spread.paired(results, {"model": "student_robust", "baseline": "student_plain"})
    assert differences["0"] == 0.25
    assert list(differences) == ["0", "2"]


def test_a_step_logged_again_after_a_resume_counts_once_with_its_last_value(results):
    log = results["curves"]["student_plain"]["0"]
    log[:] = [
        {"step": 20, "split": "train", "loss": 9.0},
        {"step": 40, "split": "train", "loss": 8.0},
        {"step": 40, "split": "train", "loss": 7.0},
        {"step": 20, "split": "validation", "loss": 1.0},
    ]
    assert spread.curve(results, "student_plain", "train", "loss")["0"] == {20: 9.0, 40: 7.0}
    assert spread.values(results, "student_plain", "train", "loss")["0"] == 7.0
    assert spread.values(results, "student_plain", "train", "loss", "mean")["0"] == 8.0


def test_an_unknown_reduction_is_refused(results):
    with pytest.raises(ValueError, match="'median'.*allowed: 'last', 'mean'"):
        spread.values(results, "student_plain", "train", "loss", "median")


@pytest.mark.parametrize(
    "value, text",
    [(64.3641, "64.36"), (5.97214, "5.972"), (0.04287, "0.0429"), (-0.3440, "-0.344"),
     (34249.7, "34,250"), (999.96, "1,000"), (1e-5, "1e-05"), (float("inf"), "not finite")],
)  # fmt: skip
def test_numbers_have_four_digits_and_three_below_one(value, text):
    assert spread.number(value) == text


def test_steps_are_the_last_logged_ones_of_each_seed(results):
    assert spread.trained_steps(results, "student_plain") == [1200, 1200, 1200]
    results["curves"]["student_plain"]["1"].append({"step": 1300, "split": "train", "loss": 1.0})
    assert spread.trained_steps(results, "student_plain") == [1200, 1300, 1200]
    assert spread.trained_steps(results, "nobody") == []
