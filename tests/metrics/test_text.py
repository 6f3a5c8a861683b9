"""Texts against references: by hand, and against sacrebleu and rouge-score called directly."""

import math

import pytest
import sacrebleu

from jaxkd.metrics import text

TEXTS = ["the cat is on the mat", "a dog , running fast", "nothing"]
REFERENCES = [["there is a cat on the mat", "the cat is on a mat"], ["a dog runs fast"], ["all"]]


def test_bleu_takes_the_best_of_several_references():
    padded = [["there is a cat on the mat", "a dog runs fast", "all"],
              ["the cat is on a mat", None, None]]  # fmt: skip
    assert text.bleu(TEXTS, REFERENCES) == pytest.approx(sacrebleu.corpus_bleu(TEXTS, padded).score)
    assert text.bleu(TEXTS, REFERENCES) > text.bleu(TEXTS, [each[:1] for each in REFERENCES])


def test_sentence_bleu_is_lin_and_ochs():
    """the the cat | the cat sat: words 2 of 3; pairs (1 + 1) of (2 + 1), threes 1 of (1 + 1), and
    of fours, of which there are none, 1 of 1."""
    expected = 100 * (2 / 3 * 2 / 3 * 1 / 2 * 1) ** (1 / 4)
    assert text.sentence_bleu("the the cat", ["the cat sat"]) == pytest.approx(expected)
    short = 100 * math.exp(1 - 3 / 2)
    assert text.sentence_bleu("the cat", ["the cat sat"]) == pytest.approx(short)


def test_rouge_by_hand():
    """a b c | a c d: two of three words; no pair of words; the longest common sequence is a c."""
    scores = text.rouge(["a b c"], [["a c d"]])
    assert scores == pytest.approx({"rouge1": 2 / 3, "rouge2": 0.0, "rougeL": 2 / 3})
    best = text.rouge(["a b c"], [["a c d", "a b c"]])
    assert best == pytest.approx(dict.fromkeys(text.ROUGE, 1.0))


def test_chrf_is_sacrebleus():
    first = [each[:1] for each in REFERENCES]
    expected = sacrebleu.corpus_chrf(TEXTS, [[each[0] for each in first]]).score
    assert text.chrf(TEXTS, first) == pytest.approx(expected)


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


def test_steps_count_at_their_position():
    """One of two; the second left out, so one of two; a step too many, so two of three; nothing."""
    references = [["go ; put"], ["go ; put"], ["go ; put"], ["go ; put", "run"]]
    texts = ["go ; take", "go", "go ;  put ; go", "run"]
    assert text.step_accuracy(texts, references) == pytest.approx((1 / 2 + 1 / 2 + 2 / 3 + 1) / 4)


def test_actions_count_at_their_position_whatever_step_they_belong_to():
    """Two of three, the third left out; all, under a wrong object; one too many; none wanted."""
    references = [
        ["cool a : open put ; take a : take"],
        ["put b : put"],
        ["put b : put"],
        ["go ; go"],
    ]
    texts = ["cool a : open put", "go c ; put c : put", "put b : put take", "go"]
    assert text.action_accuracy(texts, references) == pytest.approx((2 / 3 + 1 + 1 / 2 + 1) / 4)
    assert text.action_accuracy(["go : go", "go"], [["go"], ["go : go"]]) == 0.0
    with pytest.raises(ValueError, match="no reference has an action after ':'"):
        text.action_accuracy(["go"], [["go ; go"]])


def test_letters_wrong_by_letters_there_are():
    """cat -> cart: one put in; abc -> axcd: two; the nearer of two references, exactly."""
    references = [["cart"], ["axcd"], ["no", "yes"]]
    assert text.error_rate(["cat", "abc", "yes"], references) == pytest.approx(
        (1 + 2 + 0) / (4 + 4 + 3)
    )


@pytest.mark.parametrize(
    "written, correct",
    [
        ("so #### 1,000", True),
        ("#### 1000.0", True),
        ("#### -1000", False),
        ("1000", False),  # no mark
        ("#### none", False),
        ("#### 1 #### 1000", False),  # the first counts
    ],
)
def test_an_answer_is_the_number_after_the_mark(written, correct):
    assert text.answer_match([written], [["work #### 1000"]]) == correct


@pytest.mark.parametrize("words", ["walk", "walk left", "walk left twice", "a b c d"])
def test_a_perfect_copy_has_bleu_100_however_short_its_texts(words):
    assert text.bleu([words] * 5, [[words]] * 5) == 100.0


def test_bleu_of_texts_of_four_words_or_more_is_sacrebleus_own():
    """Only orders that no text reaches are left out: nothing else changes."""
    expected = sacrebleu.corpus_bleu(TEXTS, [[each[0] for each in REFERENCES]]).score
    assert text.bleu(TEXTS, [each[:1] for each in REFERENCES]) == pytest.approx(expected)
    assert text.bleu(["a b c d", "x"], [["a b c d"], ["x"]]) == 100.0


def test_a_perfect_text_of_a_wordpiece_tokenizer_is_an_exact_match():
    """Its decoder joins commas to words and letters lose their case; raw references never match."""
    bert = pytest.importorskip("transformers").BertTokenizerFast
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man", ",", "take", "the", "b", "."]
    tokenizer = bert(vocab={token: i for i, token in enumerate(vocab)})

    def normalise(line: str) -> str:
        return tokenizer.decode(
            tokenizer.encode(line, add_special_tokens=False), clean_up_tokenization_spaces=True
        )

    references = [["A man , take the b ."]]
    written = [normalise("a man , take the b .")]
    assert written == ["a man, take the b."]
    assert text.exact_match(written, references) == 0.0
    assert text.exact_match(written, text.normalised(references, normalise)) == 1.0
    assert text.normalised(references, None) is references
