"""Metrics of classifiers and regressions, from outputs to the number."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from jaxkd.core.batch import Batch
from jaxkd.core.outputs import Outputs
from jaxkd.metrics import classes
from jaxkd.metrics.states import on_host


def batch(labels, mask):
    rows = len(labels)
    return Batch(
        tokens=jnp.ones((rows, 2), jnp.int32), mask=jnp.ones((rows, 2), bool),
        targets=jnp.array(labels), target_mask=jnp.array(mask),
    )  # fmt: skip


def number(metric, logits, labels, mask, teacher=None):
    teacher = None if teacher is None else Outputs(jnp.array(teacher), ())
    state = metric.state(Outputs(jnp.array(logits), ()), teacher, batch(labels, mask))
    return metric.finish(on_host(state))


def test_mcc_and_f1_of_logits_are_scikit_learns_on_the_rows_that_count():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 3)).astype(np.float32), rng.integers(0, 3, 50)
    mask = rng.random(50) < 0.7
    y, p = labels[mask], logits.argmax(1)[mask]
    assert number(classes.MCC, logits, labels, mask) == pytest.approx(matthews_corrcoef(y, p))
    macro = number(classes.MACRO_F1, logits, labels, mask)
    assert macro == pytest.approx(f1_score(y, p, average="macro"))
    two = number(classes.F1, logits[:, :2], labels % 2, mask)
    assert two == pytest.approx(f1_score((labels % 2)[mask], logits[:, :2].argmax(1)[mask]))


def test_correlations_and_errors_of_scores_are_scipys_and_numpys():
    rng = np.random.default_rng(1)
    scores, teacher = rng.normal(size=(2, 30, 1)).astype(np.float32)
    labels, mask = rng.random(30).astype(np.float32) * 5, rng.random(30) < 0.8
    x, y = scores[mask, 0], labels[mask]
    score = lambda m: number(m, scores, labels, mask, teacher)  # noqa: E731
    assert score(classes.PEARSON) == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-6)
    assert score(classes.SPEARMAN) == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)
    assert score(classes.MSE) == pytest.approx(np.mean((x - y) ** 2), rel=1e-6)
    expected = np.mean((x - teacher[mask, 0]) ** 2)
    assert score(classes.MSE_TO_TEACHER) == pytest.approx(expected, rel=1e-6)


def test_a_metric_describes_itself_for_the_results_file():
    assert classes.MSE.describe() == {
        "title": "mean squared error", "unit": "", "higher_is_better": False, "columns": "all",
    }  # fmt: skip
