"""Answers' numbers, each read by hand."""

import pytest

from jaxkd.metrics.numbers import first_number
from jaxkd.metrics.text import answer_match


@pytest.mark.parametrize(
    "text, number",
    [
        ("-$5", -5), ("$-5", -5), ("- 5", -5), ("\u22123", -3), ("\u20137.5", -7.5),
        (".5", 0.5), ("-.25", -0.25), ("$.75", 0.75),
        ("1/2", 0.5), ("-3/4", -0.75), ("1 1/2", 1.5), ("1/0", None),
        ("1,450,000", 1_450_000), ("9{,}500", 9500), ("9\\,500", 9500), ("1,2", 1), ("1,0000", 1),
        ("72, in total", 72), ("18.00", 18), ("18.", 18), ("1e3", 1000), ("2.5E-2", 0.025),
        ("50%", 50), ("12.5 %", 12.5), ("\\$40", 40), ("\u20ac3", 3), ("x = 7 apples", 7),
        ("", None), ("none", None), ("-", None),
    ],
)  # fmt: skip
def test_the_first_number_of_a_text(text, number):
    assert first_number(text) == number


@pytest.mark.parametrize(
    "text, reference, correct",
    [
        ("#### -$5", "#### -5", 1), ("#### .5", "#### 0.5", 1), ("#### 1/2", "#### 1", 0),
        ("#### \u22123", "#### -3", 1), ("#### 9{,}500", "#### 9500", 1),
        ("#### 1/2", "#### 0.5", 1), ("#### 5", "#### -5", 0), ("#### 1e3", "#### 1,000", 1),
    ],
)  # fmt: skip
def test_answers_with_signs_fractions_and_separators(text, reference, correct):
    assert answer_match([text], [[reference]]) == correct
