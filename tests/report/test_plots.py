"""Facts about a report's plots: they show every arm, its spread, and whose text it was."""

import io

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxkd.report import plots, tables


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures, caught as they are saved."""
    caught: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: caught.append(self) or save(self, *a, **k)
    )
    return caught


def pixels(png: bytes) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(png))


def test_plots_are_images_with_something_on_them(results):
    for png in (plots.curves(results, results["report"]["curves"][0]), plots.differences(results)):
        image = pixels(png)
        assert min(image.shape[:2]) > 200
        assert len(np.unique(image.reshape(-1, image.shape[2]), axis=0)) > 50  # not a blank page


def test_lines_are_means_and_bands_reach_from_lowest_to_highest_seed(results, drawn):
    for seed, loss in zip("012", (1.0, 2.0, 6.0), strict=True):
        results["curves"]["teacher_plain"][seed] = [
            {"step": k, "split": "train", "loss": loss * k} for k in (1, 2)
        ]
    plots.curves(results, {"models": ["teacher_plain"], "split": "train", "metric": "loss"})
    axes = drawn[0].axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1, 3.0], [2, 6.0]]
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (1.0, 12.0)


def test_every_arm_is_in_the_legend_and_axes_have_units(results, drawn):
    spec = results["report"]["curves"][1]
    plots.curves(results, spec)
    entries = legend(drawn[0])
    assert entries[:2] == ["teacher, LayerDrop 0", "teacher, LayerDrop 0.1"]
    assert entries[2:] == [
        "unigram, validation split: 6.68 nats",
        "unigram, evaluated positions: 6.85 nats",
    ]
    axes = drawn[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("optimiser steps", "validation loss [nats]")


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_unigram_line_is_drawn_only_where_the_plot_has_it(results, drawn):
    spec = results["report"]["curves"][1] | {"unigram": False}
    plots.curves(results, spec)
    assert not any("unigram" in text for text in legend(drawn[0]))


def test_students_are_held_against_their_teachers_last_value_on_the_same_rows(results, drawn):
    for seed, last in zip("012", (5.0, 6.0, 7.0), strict=True):
        results["curves"]["teacher_plain"][seed].append(
            {"step": 1300, "split": "validation", "loss": last}
        )
    spec = {"models": ["student_plain", "student_random"], "split": "validation"}
    plots.curves(results, spec)
    assert legend(drawn[0])[2:] == ["teacher, LayerDrop 0: 6.000"]
    plots.curves(results, spec | {"models": ["teacher_plain", "student_plain"]})
    plots.curves(results, spec | {"split": "train"})  # objectives are no teacher's numbers
    assert all(len(legend(figure)) == 2 for figure in drawn[1:])


def test_accuracy_is_drawn_in_percent_beside_the_majority_class(results, drawn):
    results["metrics"]["majority"] = {
        "title": "always the most frequent class", "unit": "%", "baseline_of": "accuracy",
    }  # fmt: skip
    for seed in "012":
        results["models"]["student_plain"]["seeds"][seed]["validation"]["majority"] = 0.509
        results["curves"]["student_plain"][seed] = [
            {"step": k, "split": "validation", "accuracy": 0.25 * k} for k in (1, 2)
        ]
    spec = {"models": ["student_plain"], "split": "validation", "metric": "accuracy"}
    plots.curves(results, spec)
    axes = drawn[0].axes[0]
    assert axes.get_ylabel() == "validation accuracy [%]"
    assert axes.lines[0].get_xydata().tolist() == [[1, 25.0], [2, 50.0]]
    assert "always the most frequent class: 50.90" in legend(drawn[0])


def test_one_seed_has_no_plot_of_paired_differences(results):
    results["seeds"] = [0]
    assert plots.differences(results) is None


def test_a_model_has_one_colour_in_all_plots(results, drawn):
    for models in (["student_random"], ["teacher_plain", "student_random"]):
        plots.curves(results, {"models": models, "split": "train", "metric": "loss"})
    colours = [figure.axes[0].lines[-1].get_color() for figure in drawn]
    assert colours[0] == colours[1] != drawn[1].axes[0].lines[0].get_color()


def test_embedded_text_is_said_in_the_plot_itself(results, drawn):
    results["data"]["embedded"] = True
    plots.curves(results, results["report"]["curves"][0])
    plots.differences(results)
    assert all(tables.embedded_warning(results) in figure.get_suptitle() for figure in drawn)
    assert len(drawn) == 2


def test_nothing_logged_is_no_plot(results):
    results["curves"] = {}
    assert plots.curves(results, results["report"]["curves"][0]) is None
    results["report"]["comparisons"] = []
    assert plots.differences(results) is None


def test_labels_with_markup_of_matplotlib_are_drawn_as_they_are(results, drawn):
    results["report"]["labels"]["teacher_plain"] = "$x_{ & 5$ more"
    results["report"]["labels"]["teacher_robust"] = "_private"
    plots.curves(results, results["report"]["curves"][1])
    entries = legend(drawn[0])
    assert entries[0].replace("\\", "") == "$x_{ & 5$ more"
    assert entries[1].strip() == "_private"


def test_one_seed_one_step_and_values_that_are_not_finite_can_be_drawn(results):
    results["seeds"] = [0]
    one = [{"step": 1, "split": "train", "loss": 2.0}]
    results["curves"]["teacher_plain"] = {"0": one}
    results["curves"]["teacher_robust"] = {"0": [one[0] | {"loss": np.nan}, one[0] | {"step": 2}]}
    for models in (["teacher_plain"], ["teacher_robust"], ["teacher_plain", "teacher_robust"]):
        assert plots.curves(results, {"models": models, "split": "train", "metric": "loss"})
