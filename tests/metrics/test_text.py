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


@pytest.mark.parametrize("metric", [text.bleu, text.chrf, text.rouge, text.exact_match])
def test_texts_without_their_references_are_refused(metric):
    with pytest.raises(ValueError, match="2 texts and 1 lists of references"):
        metric(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="0 texts"):
        metric([], [])
