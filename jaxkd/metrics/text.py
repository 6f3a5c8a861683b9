"""Texts a model generated against references: BLEU and chrF, ROUGE, exact match, plans, answers."""

from collections.abc import Callable, Sequence

import sacrebleu
from nltk.metrics.distance import edit_distance
from rouge_score import rouge_scorer

from jaxkd.metrics.numbers import first_number

References = Sequence[Sequence[str]]  # of each text, one or several

ROUGE = ("rouge1", "rouge2", "rougeL")
# Orders of n-grams that no text is long enough for are left out, as sentence BLEU does: else a
# perfect copy of texts shorter than four tokens would score 0.
_BLEU = sacrebleu.BLEU(effective_order=True)
_SMOOTHED = sacrebleu.BLEU(smooth_method="add-k", smooth_value=1, effective_order=True)


def normalised(references: References, normalise: Callable[[str], str] | None) -> References:
    """References as a tokenizer gives them back, for metrics that compare letters.

    A tokenizer that does not keep its text whole (WordPiece) puts spaces and case otherwise: a
    perfect copy would never equal its raw reference.

    Args:
      normalise: encodes and decodes; None changes nothing.

    >>> normalised([["A man , b"]], lambda text: text.lower().replace(" ,", ","))
    [['a man, b']]
    """
    if normalise is None:
        return references
    return [[normalise(reference) for reference in several] for several in references]


def bleu(texts: Sequence[str], references: References) -> float:
    """Corpus BLEU, 0 to 100, of sacrebleu with its own tokens (13a).

    Texts that are all shorter than four tokens are scored by the n-grams they have.
    Source: Papineni et al. (2002); Post (2018), arXiv:1804.08771.

    >>> bleu(["the cat sat on the mat"], [["the cat sat on the mat"]])
    100.0
    >>> bleu(["walk left twice"] * 9, [["walk left twice"]] * 9)
    100.0
    """
    _check(texts, references)
    return round(_BLEU.corpus_score(list(texts), _by_index(references)).score, 10)


def chrf(texts: Sequence[str], references: References) -> float:
    """Corpus chrF2, 0 to 100, of sacrebleu. Source: Popović (2015)."""
    _check(texts, references)
    return round(sacrebleu.corpus_chrf(list(texts), _by_index(references)).score, 10)


def sentence_bleu(text: str, references: Sequence[str]) -> float:
    """BLEU of one text, 0 to 100, with one added to the counts of all but single words.

    Source: Lin and Och (2004), as sequence-level interpolation needs it (Kim and Rush, 2016).
    """
    return _SMOOTHED.sentence_score(text, list(references)).score


def rouge(texts: Sequence[str], references: References) -> dict[str, float]:
    """Mean F of ROUGE-1, -2 and -L, 0 to 1, with stems; of several references the best.

    Source: Lin (2004); Google's rouge-score.
    """
    _check(texts, references)
    scorer = rouge_scorer.RougeScorer(list(ROUGE), use_stemmer=True)
    scores = [
        scorer.score_multi(list(several), text)
        for text, several in zip(texts, references, strict=True)
    ]
    return {name: sum(one[name].fmeasure for one in scores) / len(scores) for name in ROUGE}


def exact_match(texts: Sequence[str], references: References) -> float:
    """Fraction of texts equal to one of their references, but for spaces around and between words.

    >>> exact_match(["a  b ", "c"], [["a b"], ["d"]])
    0.5
    """
    _check(texts, references)
    same = (
        " ".join(text.split()) in {" ".join(each.split()) for each in several}
        for text, several in zip(texts, references, strict=True)
    )
    return sum(same) / len(texts)


def step_accuracy(texts: Sequence[str], references: References, separator: str = ";") -> float:
    """Mean fraction of a plan's steps that are right at their position, of the longer of the two.

    Steps stand between separators; of several references the best counts.

    >>> step_accuracy(["go ; take", "go"], [["go ; put"], ["go ; take"]])
    0.5
    """
    return _position_accuracy(
        texts, references, lambda text: [" ".join(step.split()) for step in text.split(separator)]
    )


def action_accuracy(
    texts: Sequence[str], references: References, separator: str = ";", colon: str = ":"
) -> float:
    """Mean fraction of a plan's actions right at their position, of the longer of the two.

    A step's actions stand after its colon, as words; of several references the best counts. Plans
    without any are equal.

    Raises:
      ValueError: if no reference at all has an action.

    >>> action_accuracy(["cool : open put go ; go"], [["cool : open put ; take : take"]])
    0.6666666666666666
    """

    def actions(text: str) -> list[str]:
        steps = (step.partition(colon)[2] for step in text.split(separator))
        return [action for step in steps for action in step.split()]

    _check(texts, references)
    if not any(actions(one) for several in references for one in several):
        raise ValueError(
            f"no reference has an action after {colon!r}: accuracy of actions is for plans that do."
        )
    return _position_accuracy(texts, references, actions)


def _position_accuracy(
    texts: Sequence[str], references: References, parts: Callable[[str], list[str]]
) -> float:
    """Mean fraction of parts that are right at their position, of the longer of the two."""
    _check(texts, references)

    def fraction(text: str, reference: str) -> float:
        predicted, expected = parts(text), parts(reference)
        same = sum(a == b for a, b in zip(predicted, expected, strict=False))
        longest = max(len(predicted), len(expected))
        return same / longest if longest else 1.0

    best = (
        max(fraction(text, one) for one in several)
        for text, several in zip(texts, references, strict=True)
    )
    return sum(best) / len(texts)


def error_rate(texts: Sequence[str], references: References) -> float:
    """Letters to insert, delete or replace, divided by the letters of the references: CER.

    Of several references the nearest counts.

    >>> error_rate(["cat", "dog"], [["cart"], ["dog"]])
    0.14285714285714285
    """
    _check(texts, references)
    wrong = letters = 0
    for text, several in zip(texts, references, strict=True):
        distance, length = min((edit_distance(text, one), len(one)) for one in several)
        wrong, letters = wrong + distance, letters + length
    return wrong / max(letters, 1)


def answer_match(texts: Sequence[str], references: References, mark: str = "####") -> float:
    """Fraction of texts whose number after the mark is that of their reference (numbers.py).

    >>> answer_match(["so #### 1,000", "1000"], [["#### 1000"], ["#### 1000"]])
    0.5
    """
    _check(texts, references)

    def number(text: str) -> float | None:
        return first_number(text.partition(mark)[2])

    correct = sum(
        number(text) is not None and number(text) in {number(one) for one in several}
        for text, several in zip(texts, references, strict=True)
    )
    return correct / len(texts)


def _check(texts: Sequence[str], references: References) -> None:
    if not texts or len(texts) != len(references):
        raise ValueError(
            f"{len(texts)} texts and {len(references)} lists of references: one list a text, and "
            "at least one text."
        )


def _by_index(references: References) -> list[list[str | None]]:
    """First references of all texts, then second ones; None where a text has fewer."""
    most = max(map(len, references))
    return [[each[i] if i < len(each) else None for each in references] for i in range(most)]
