"""`run.py --plan`: what each training needs is what its step has, and too much is refused."""

import dataclasses
import functools
import math
import pathlib

import jax
import pytest

from jaxkd.data.rows.labelled import Labelled
from jaxkd.models import families
from jaxkd.runs import runner
from jaxkd.runs.experiment import Report
from jaxkd.runs.needs import check_memory
from jaxkd.runtime import memory
from jaxkd.stages.cost import Cost, _longest, of_all, training_cost
from jaxkd.stages.sweep import Sweep
from jaxkd.stages.train import Train
from jaxkd.tasks.task import task_for
from tests.stages import small


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small.write_corpus(tmp_path_factory.mktemp("corpus"))


def on_one_device(corpus):
    """Programs of eight devices would take most of the time of these tests to compile."""
    experiment = small.experiment(corpus)
    for stage in experiment.stages.values():
        if hasattr(stage, "parallel"):
            stage.parallel = "jitted"
    return experiment


@pytest.fixture
def cost_of(corpus, tmp_path):
    experiment = on_one_device(corpus)
    return functools.partial(_cost_of, experiment, experiment.data.open(tmp_path))


def _cost_of(experiment, rows, free=None, **changes):
    stage = dataclasses.replace(experiment.stages["teacher"], **changes)
    config = experiment.stages["teacher_init"].plan({}, rows)
    return training_cost(stage, config, None, task_for(rows).terms(), rows, 0, free), config


def test_weights_optimiser_and_steps_are_those_of_the_training(cost_of):
    cost, config = cost_of()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(families.build(config).shapes))
    assert cost.parameters == parameters
    assert cost.weights == 4 * parameters
    # Adam's two means of each parameter, and a few counters.
    assert 8 * parameters <= cost.optimiser <= 8 * parameters + 64
    assert cost.steps == 12 and cost.seconds > 0


def test_checkpoints_take_that_much_disk(corpus, tmp_path):
    experiment = on_one_device(corpus)
    where = dict(name="small", variant="x", workdir=tmp_path / "runs", cache=tmp_path)
    experiment.stages = {name: experiment.stages[name] for name in ("teacher_init", "teacher")}
    experiment.stages["teacher_init"].model.width = 256
    experiment.report = Report()
    cost = runner.plan(experiment, **where)
    folder = runner.run(experiment, command="", **where)
    checkpoints = (folder / "0" / "teacher" / "checkpoint").rglob("*")
    written = sum(file.stat().st_size for file in checkpoints if file.is_file())
    # One of the three is written before the oldest goes; random numbers are hardly compressed.
    assert written < cost.disk < 2 * written


def test_of_several_devices_each_has_its_part_of_the_batch(cost_of):
    alone = cost_of(batch_size=64)[0]
    shared = cost_of(batch_size=64, parallel="pmapped")[0]
    assert shared.weights == alone.weights and shared.activations < 0.5 * alone.activations


@pytest.mark.parametrize("tensor", [1, 2])
def test_a_sharded_training_holds_a_part_of_its_arrays_on_each_device(cost_of, tensor):
    alone = cost_of(batch_size=64)[0]
    parts = cost_of(batch_size=64, parallel="sharded", tensor=tensor)[0]
    # Eight devices; what does not divide, biases among it, is whole on each.
    assert alone.weights / 8 < parts.weights < alone.weights / 2
    assert alone.optimiser / 8 < parts.optimiser < alone.optimiser / 2


def test_what_is_frozen_has_no_optimiser_state(cost_of):
    cost, _ = cost_of()
    frozen, _ = cost_of(freeze=("embed/*",))
    assert frozen.weights == cost.weights and frozen.optimiser < cost.optimiser


def test_micro_batches_hold_fewer_activations(cost_of):
    sizes = [cost_of(accumulate=n, batch_size=64)[0].activations for n in (1, 4)]
    assert sizes[1] < 0.6 * sizes[0]


def test_a_step_that_would_not_fit_is_not_run(cost_of, monkeypatch):
    enough, _ = cost_of(free=10**12)
    assert enough.seconds > 0
    for free in (enough.memory - 1, 1000):
        assert math.isnan(cost_of(free=free)[0].seconds)


def test_memory_is_that_of_the_longest_rows(tmp_path):
    (tmp_path / "rows.tsv").write_text(
        "text\tlabel\n" + "".join(f"{'ab ' * (1 + i % 9)}\t{i % 2}\n" for i in range(90))
    )
    data = Labelled(train=str(tmp_path / "rows.tsv"), tokenizer="trained", length=32)
    rows = data.open(tmp_path)
    lengths = rows.sort_keys(rows.splits["train"])
    longest = _longest(Train("x", batch_size=4), rows, 0)
    assert (longest.mask.sum(1) == lengths.max()).all()


def test_trainings_one_after_another_add_up():
    small_one = Cost(10, 40, 80, 100, 120, disk=1000, seconds=0.5, steps=4)
    large_one = Cost(10, 40, 80, 300, 120, disk=1000, seconds=2.0, steps=2)
    both = of_all([small_one, large_one], times=3)
    assert both.memory == 420 and both.disk == 6000 and both.steps == 18
    assert both.seconds * both.steps == pytest.approx(3 * (4 * 0.5 + 2 * 2.0))


def test_a_sweep_needs_what_its_largest_batch_does(corpus, tmp_path):
    experiment = on_one_device(corpus)
    rows = experiment.data.open(tmp_path)
    train = experiment.stages["teacher"]
    config = experiment.stages["teacher_init"].plan({}, rows)
    sweep = Sweep(train, learning_rates=(1e-4, 1e-3, 1e-2), batch_sizes=(4, 32))
    cost = sweep.cost({train.source: config}, rows, task_for(rows), 0)
    largest = dataclasses.replace(train, batch_size=32)
    alone = training_cost(largest, config, None, task_for(rows).terms(), rows, 0)
    assert cost.memory == alone.memory and cost.steps == 2 * 3 * train.steps
    assert sweep.cost({}, rows, task_for(rows), 0) is None


def test_a_plan_says_what_a_run_has_done_and_writes_nothing(corpus, tmp_path):
    experiment = functools.partial(on_one_device, corpus)
    where = dict(name="small", variant="x", workdir=tmp_path / "runs", cache=tmp_path)
    planned = runner.plan(experiment(), **where)
    assert not (tmp_path / "runs").exists()
    trainings = [n for n, s in experiment().stages.items() if type(s).__name__ == "Train"]
    assert list(planned.memory) == trainings and planned.minutes > 0
    runner.run(experiment(), command="", **where)
    again = runner.plan(experiment(), **where)
    assert again.memory == {} and again.disk == 0
    assert all("done" in row for row in again.table.rows)
    more = experiment()
    more.seeds = (0, 1)
    assert list(runner.plan(more, **where).memory) == trainings  # of the second seed


def test_a_training_that_needs_more_memory_than_there_is_is_refused(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 100_000)
    with pytest.raises(ValueError, match=r"'teacher' needs about .* GB .*batch size"):
        where = dict(name="small", variant="x", workdir=tmp_path / "r", cache=tmp_path)
        runner.plan(on_one_device(corpus), **where)
    check_memory({"teacher": 10**15}, None)  # where nothing says how much there is


def test_this_machine_says_how_much_memory_it_has():
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    total = 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemTotal")))
    assert total / 100 / jax.device_count() < memory.available() <= total / jax.device_count()


def test_a_container_has_no_more_than_its_limit(tmp_path):
    assert memory._of_group(tmp_path) is None
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory._of_group(tmp_path) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._of_group(tmp_path) is None
