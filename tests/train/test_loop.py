"""The loop, with a step of plain numbers: windows, evaluations, checkpoints, patience, stops."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.core.mean import Mean
from jaxkd.train import loop
from jaxkd.train.log import MetricLog

MASK = np.array([[True, True, False], [True, False, False]])


class Feed:
    """Batch k is k; remembers where it was started."""

    def start(self, step):
        self.at = step
        return self

    def __next__(self):
        self.at += 1
        return Batch(tokens=np.full((2, 3), self.at - 1), mask=MASK)


@dataclasses.dataclass
class Run:
    plan: loop.Plan
    validation: object = staticmethod(lambda done: 1.0 / done)
    loss: object = staticmethod(lambda k: float(k))
    stop_at: int | None = None
    count: object = staticmethod(lambda k: 1.0)
    check: object = staticmethod(lambda batch: None)
    on_log: object = staticmethod(lambda values: None)

    def go(self, done=0, losses=()):
        self.logged, self.saved, self.improved = [], [], []
        self.now = done

        def step(state, teacher, batch):
            k = int(batch.tokens[0, 0])
            self.now = k + 1
            count = self.count(k)
            return state + 1, {"loss": Mean(jnp.float32(self.loss(k)), jnp.float32(count))}

        def log(done, split, values):
            self.logged.append((done, split, values["loss"]))
            self.on_log(values)

        hooks = loop.Hooks(
            log=log,
            save=lambda done, state, data: self.saved.append((done, state, data)),
            evaluate=lambda done, state: {"loss": self.validation(done)},
            improved=lambda done, state: self.improved.append(done),
            stopping=lambda: self.now == self.stop_at,
            check=self.check,
        )
        return loop.run(step, done, None, Feed(), self.plan, hooks, done=done, losses=list(losses))


PLAN = loop.Plan(steps=10, log_every=3, save_every=4, evaluate_every=5)


def test_each_step_is_logged_once_in_the_mean_of_its_window():
    run = Run(PLAN)
    assert run.go() == 10
    train = [(done, loss) for done, split, loss in run.logged if split == "train"]
    # Windows end at multiples of 3 (log), 4 (save), 5 (evaluation) and at the end.
    last_steps = [3, 4, 5, 6, 8, 9, 10]
    expected = [
        (e, np.mean(range(s, e))) for s, e in zip([0, *last_steps], last_steps, strict=False)
    ]
    assert train == expected


def test_checkpoints_hold_the_state_and_the_losses_of_their_step():
    run = Run(PLAN)
    run.go()
    losses = {4: [], 5: [1 / 5], 8: [1 / 5], 10: [1 / 5, 1 / 10]}
    assert run.saved == [(k, k, {"validation_losses": losses[k]}) for k in (4, 5, 8, 10)]


def test_a_resumed_run_logs_what_the_uninterrupted_one_logs():
    whole, rest = Run(PLAN), Run(PLAN)
    whole.go()
    rest.go(done=4)
    assert rest.logged == [row for row in whole.logged if row[0] > 4]


def test_patience_ends_training_when_the_loss_stops_falling():
    losses = {2: 3.0, 4: 2.0, 6: 2.5, 8: 2.4, 10: 2.3, 12: 1.0}
    plan = loop.Plan(steps=12, log_every=5, save_every=100, evaluate_every=2, patience=2)
    run = Run(plan, validation=losses.get)
    assert run.go() == 8  # the evaluations at 6 and 8 are not better than that at 4
    assert run.improved == [2, 4]
    assert Run(plan, validation=losses.get).go(done=6, losses=[3.0, 2.0, 2.5]) == 8
    assert Run(plan, validation=losses.get).go(done=8, losses=[3.0, 2.0, 2.5, 2.4]) == 8


def test_a_loss_that_is_not_finite_names_its_step_and_is_not_saved():
    run = Run(PLAN, loss=lambda k: float("nan") if k == 6 else 1.0)
    with pytest.raises(loop.NotFinite, match="step 7 is not finite: loss nan"):
        run.go()
    assert [done for done, _, _ in run.saved] == [4, 5]


def test_a_stop_saves_the_step_it_is_at():
    run = Run(PLAN, stop_at=7)
    with pytest.raises(KeyboardInterrupt, match="after step 7"):
        run.go()
    assert run.saved[-1] == (7, 7, {"validation_losses": [1 / 5]})


def test_the_log_forgets_what_will_be_run_again_and_a_line_cut_off(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl")
    for step in (2, 4, 6):
        log.write(step, "train", {"loss": step / 2})
    with open(log.file, "a") as stream:
        stream.write('{"step": 8, "split": "tr')
    log.rewind(4)
    assert [row["step"] for row in log.rows()] == [2, 4]
    log.write(6, "train", {"loss": 3.0})
    assert [json.loads(line)["loss"] for line in log.file.read_text().splitlines()] == [
        1.0,
        2.0,
        3.0,
    ]


def test_a_damaged_line_is_dropped_alone_and_said(tmp_path):
    message = []
    log = MetricLog(tmp_path / "metrics.jsonl", warn=message.append)
    for step in (2, 4, 6):
        log.write(step, "train", {"loss": step / 2})
    lines = log.file.read_bytes().splitlines(keepends=True)
    for damage in (b"\xff\xfe\n", b"[1, 2]\n", b'{"loss": 1.0}\n'):
        log.file.write_bytes(lines[0] + damage + lines[2])
        message.clear()
        log.rewind(6)
        assert [row["step"] for row in log.rows()] == [2, 6]
        assert len(message) == 1 and "metrics.jsonl: 1 damaged lines" in message[0]


def test_the_speed_counts_tokens_and_no_padding():
    run = Run(loop.Plan(steps=4, log_every=4, save_every=4))
    speeds = []
    run.on_log = lambda values: speeds.append(values)
    run.go()
    (row,) = (v for v in speeds if "step_seconds" in v)
    tokens = row["tokens_per_second"] * row["step_seconds"]
    assert tokens == pytest.approx(3)  # of 6, see MASK


def test_sums_of_a_window_are_exact_beyond_float32():
    """2^24 + 1 has no float32: added there, the second count is lost."""
    run = Run(loop.Plan(steps=2, log_every=2, save_every=2), count=lambda k: [2.0**24, 1.0][k])
    run.go()
    (loss,) = (loss for _, split, loss in run.logged if split == "train")
    assert loss == 1 / (2**24 + 1)  # totals 0 and 1


def test_a_batch_that_cannot_be_learned_stops_before_its_step():
    def refuse(batch):
        if batch.tokens[0, 0] == 2:
            raise ValueError("no")

    run = Run(PLAN, check=refuse)
    with pytest.raises(ValueError, match="no"):
        run.go()
    assert run.now == 2


def test_tensorboard_gets_the_same_numbers(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
    log.write(2, "train", {"loss": 1.5})
    log.close()
    events = list((tmp_path / "tensorboard").glob("events*"))
    assert len(events) == 1 and b"train/loss" in events[0].read_bytes()
