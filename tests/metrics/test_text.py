"""Texts against references: by hand, and against sacrebleu and rouge-score called directly."""

import math

import pytest
import sacrebleu

from jaxkd.metrics import text

WRITTEN = ["the cat is on the mat", "a dog , running fast", "nothing"]
RIGHT = [["there is a cat on the mat", "the cat is on a mat"], ["a dog runs fast"], ["all"]]


def test_bleu_takes_the_best_of_several_references():
    padded = [["there is a cat on the mat", "a dog runs fast", "all"],
              ["the cat is on a mat", None, None]]  # fmt: skip
    assert text.bleu(WRITTEN, RIGHT) == pytest.approx(sacrebleu.corpus_bleu(WRITTEN, padded).score)
    assert text.bleu(WRITTEN, RIGHT) > text.bleu(WRITTEN, [each[:1] for each in RIGHT])


def test_sentence_bleu_is_lin_and_ochs():
    """the the cat | the cat sat: words 2 of 3; pairs (1 + 1) of (2 + 1), threes 1 of (1 + 1), and
    of fours, of which there are none, 1 of 1."""
    expected = 100 * (2 / 3 * 2 / 3 * 1 / 2 * 1) ** (1 / 4)
    assert text.sentence_bleu("the the cat", ["the cat sat"]) == pytest.approx(expected)
    short = 100 * math.exp(1 - 3 / 2)
    assert text.sentence_bleu("the cat", ["the cat sat"]) == pytest.approx(short)


def test_rouge_by_hand():
    """a b c | a c d: two of three words; no pair of words; the longest common sequence is a c."""
    found = text.rouge(["a b c"], [["a c d"]])
    assert found == pytest.approx({"rouge1": 2 / 3, "rouge2": 0.0, "rougeL": 2 / 3})
    best = text.rouge(["a b c"], [["a c d", "a b c"]])
    assert best == pytest.approx(dict.fromkeys(text.ROUGE, 1.0))


def test_chrf_is_sacrebleus():
    first = [each[:1] for each in RIGHT]
    expected = sacrebleu.corpus_chrf(WRITTEN, [[each[0] for each in first]]).score
    assert text.chrf(WRITTEN, first) == pytest.approx(expected)


@pytest.mark.parametrize(
    "metric",
    [text.bleu, text.chrf, text.rouge, text.exact_match, text.step_accuracy, text.action_accuracy,
     text.error_rate, text.answer_match],
)  # fmt: skip
def test_texts_without_their_references_are_refused(metric):
    with pytest.raises(ValueError, match="2 texts and 1 lists of references"):
        metric(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="0 texts"):
        metric([], [])


def test_steps_count_in_their_place():
    """One of two; the second left out, so one of two; a step too many, so two of three; nothing."""
    told = [["go ; put"], ["go ; put"], ["go ; put"], ["go ; put", "run"]]
    wrote = ["go ; take", "go", "go ;  put ; go", "run"]
    assert text.step_accuracy(wrote, told) == pytest.approx((1 / 2 + 1 / 2 + 2 / 3 + 1) / 4)


def test_actions_count_in_their_place_whatever_step_they_belong_to():
    """Two of three, the third left out; all, under a wrong object; one too many; none wanted."""
    told = [["cool a : open put ; take a : take"], ["put b : put"], ["put b : put"], ["go ; go"]]
    wrote = ["cool a : open put", "go c ; put c : put", "put b : put take", "go"]
    assert text.action_accuracy(wrote, told) == pytest.approx((2 / 3 + 1 + 1 / 2 + 1) / 4)
    assert text.action_accuracy(["go : go", "go"], [["go"], ["go : go"]]) == 0.0
    with pytest.raises(ValueError, match="no reference has an action after ':'"):
        text.action_accuracy(["go"], [["go ; go"]])


def test_letters_wrong_by_letters_there_are():
    """cat -> cart: one put in; abc -> axcd: two; the nearer of two references, exactly."""
    told = [["cart"], ["axcd"], ["no", "yes"]]
    assert text.error_rate(["cat", "abc", "yes"], told) == pytest.approx((1 + 2 + 0) / (4 + 4 + 3))


@pytest.mark.parametrize(
    "wrote, right",
    [
        ("so #### 1,000", True),
        ("#### 1000.0", True),
        ("#### -1000", False),
        ("1000", False),  # no mark
        ("#### none", False),
        ("#### 1 #### 1000", False),  # the first counts
    ],
)
def test_an_answer_is_the_number_after_the_mark(wrote, right):
    assert text.answer_match([wrote], [["work #### 1000"]]) == right
