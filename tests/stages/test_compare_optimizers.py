"""Optimizers on what a search measured, as a stage."""

import dataclasses
import json

import pytest

from jaxkd.runs import runner
from jaxkd.stages.compare_optimizers import CompareOptimizers
from tests.stages import searching, small


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small.write_corpus(tmp_path_factory.mktemp("compare") / "corpus")


def experiment(corpus, *, halving=0, **settings):
    made = searching.get_config()
    made.data.dir = str(corpus)
    search = dataclasses.replace(made.stages["search"], halving=halving, candidates=9)
    made.stages = {
        "teacher_init": made.stages["teacher_init"],
        "search": dataclasses.replace(search, teacher="teacher_init", layers=(1,)),
        "compare": CompareOptimizers(optimizers=("random", "evolution"), **settings),
    }
    return made


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    return runner.run(
        experiment(corpus, seeds=3, within=0.0), name="comparing", variant="small",
        command="pytest", workdir=tmp_path_factory.mktemp("runs"), cache=corpus.parent / "cache",
    )  # fmt: skip


def test_each_optimizer_finds_the_best_that_the_search_measured(finished):
    results = json.loads((finished / "results.json").read_text())
    candidates = results["search"]["search"]["0"]["candidates"]
    compared = results["optimizers"]["compare"]["0"]
    rewards = [each["reward"] for each in candidates]
    assert compared["candidates"] == len(candidates) == 3
    assert compared["best"] == max(rewards)
    assert compared["near_best"] == rewards.count(max(rewards))
    for runs in compared["improvements"].values():
        assert len(runs) == 3
        for each in runs:
            assert each[-1][1] == max(rewards) and each[-1][0] <= 3
            assert {reward for _, reward in each} <= set(rewards)
    report = (finished / "report.md").read_text()
    assert "Optimizers: compare" in report
    assert (finished / "compare-regret-over-candidates.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(halving=3), "halving of 'search' is 3.*no reward to look up.*search.halving=0"),
        (dict(search="teacher_init"), "'teacher_init': that is no Search stage"),
    ],
)
def test_what_has_no_rewards_to_look_up_is_refused_before_anything_runs(corpus, settings, message):
    with pytest.raises(ValueError, match=message):
        experiment(corpus, **settings).check()


def test_optimizers_are_named_once():
    with pytest.raises(ValueError, match="each only once"):
        CompareOptimizers(optimizers=("random", "random")).check()


def test_a_limit_that_leaves_no_two_candidates_is_refused(corpus, finished):
    with pytest.raises(ValueError, match="0 candidates of 'search'.* in 1e-06 of the teacher's"):
        runner.run(
            experiment(corpus, max_time=1e-6), name="comparing", variant="small",
            command="pytest", workdir=finished.parent, cache=corpus.parent / "cache",
        )  # fmt: skip
