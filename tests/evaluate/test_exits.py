"""What answers are worth: their mean is the metric, and changes as the metric does."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from jaxkd.evaluate.exits import answer_quality
from jaxkd.exits import stopping
from jaxkd.exits.rules import exits_under
from jaxkd.metrics.classes import ACCURACY, F1, MACRO_F1, MCC

ONE_HOT = np.eye(3, dtype=np.float32)
SCORES = {
    "f1": sklearn_metrics.f1_score,
    "mcc": sklearn_metrics.matthews_corrcoef,
    "macro_f1": lambda labels, answers: sklearn_metrics.f1_score(labels, answers, average="macro"),
    "accuracy": sklearn_metrics.accuracy_score,
}


def answers_of(classes, rows, seed):
    draw = np.random.default_rng(seed)
    labels = draw.choice(classes, rows, p=[0.7, 0.3] if classes == 2 else [0.6, 0.3, 0.1])
    return labels, np.where(draw.random(rows) < 0.7, labels, draw.integers(0, classes, rows))


def quality_of(metric, labels, answers, classes):
    logits = ONE_HOT[answers][:, :classes]
    return answer_quality(metric, logits, labels.astype(float))


@pytest.mark.parametrize(
    "metric, classes", [(F1, 2), (MCC, 2), (MCC, 3), (MACRO_F1, 3), (ACCURACY, 2), (ACCURACY, 3)]
)
def test_the_mean_is_the_metric_and_a_changed_answer_changes_both_alike(metric, classes):
    labels, answers = answers_of(classes, 4_000, 0)
    quality = quality_of(metric, labels, answers, classes)
    score = SCORES[metric.name]
    np.testing.assert_allclose(quality[labels, answers].mean(), score(labels, answers), atol=1e-6)
    for true in range(classes):
        for changed in range(classes):
            other = answers.copy()
            other[np.flatnonzero(labels == true)[:1]] = changed
            np.testing.assert_allclose(
                quality[labels, other].mean() - quality[labels, answers].mean(),
                score(labels, other) - score(labels, answers),
                atol=5e-7,  # one of 4,000 rows: the second derivative's part
            )


def test_accuracy_counts_right_answers_and_a_class_never_predicted_has_a_worth():
    labels, answers = answers_of(3, 100, 0)
    np.testing.assert_array_equal(quality_of(ACCURACY, labels, answers, 3), np.eye(3))
    quality = quality_of(MCC, labels % 2, 0 * labels, 2)
    assert np.isfinite(quality).all()
    assert quality[1, 1] > quality[1, 0]  # right is better than wrong


def rare_positives(rows, seed):
    """Logits of three exits and labels; early exits rarely dare to say that a row is positive."""
    draw = np.random.default_rng(seed)
    labels = (draw.random(rows) < 0.25).astype(int)
    noise = np.cumsum(draw.normal(0, 1.0, (rows, 3))[:, ::-1], 1)[:, ::-1]
    evidence = 1.0 * (2 * labels - 1)[:, None] + noise - np.array([1.5, 0.7, 0.0])
    return np.stack([np.zeros_like(evidence), evidence], 2).astype(np.float32), labels


def test_stopping_for_f1_keeps_more_of_it_than_stopping_for_accuracy():
    calibration, evaluation = rare_positives(8_000, 0), rare_positives(8_000, 1)
    f1 = answer_quality(F1, calibration[0][:, -1], calibration[1].astype(float))
    reached = {}
    for name, answers in (("f1", f1), ("accuracy", None)):
        known = stopping.calibrate(*calibration, bins=16, answers=answers)
        points = []
        for price in np.geomspace(0.005, 0.5, 15):
            policy = stopping.solve(known.chain, np.ones(3), price)
            exits = exits_under(known.rule(policy), evaluation[0])
            chosen = evaluation[0][np.arange(len(exits)), exits].argmax(1)
            points.append((1.0 + exits.mean(), SCORES["f1"](evaluation[1], chosen)))
            # What the chain expects of its own table is what unseen rows achieve.
            achieved = stopping.qualities(
                evaluation[0][np.arange(len(exits)), exits][:, None], evaluation[1], answers
            )
            np.testing.assert_allclose(policy.quality, achieved.mean(), atol=0.03)
        times, scores = zip(*sorted(points), strict=True)
        reached[name] = np.interp(np.linspace(1.1, 2.0, 10), times, scores)
    assert (reached["f1"] > reached["accuracy"] - 0.005).all(), reached
    assert (reached["f1"] - reached["accuracy"]).mean() > 0.01, reached
