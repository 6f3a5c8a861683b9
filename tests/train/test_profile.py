"""A trace is written for some steps, and for a run that ends before them."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from jaxkd.train.profile import Profiled


@pytest.mark.parametrize("calls", [4, 2])
def test_steps_are_traced_and_give_what_they_gave(tmp_path, calls):
    double = jax.jit(lambda x: 2 * x)
    step = Profiled(double, tmp_path / "trace", after=1, count=2)
    x = jnp.ones(())
    for _ in range(calls):
        x = step(x)
    step.close()
    assert x == 2.0**calls
    (file,) = (tmp_path / "trace").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))
    events = events["traceEvents"] if isinstance(events, dict) else events
    steps = {event["args"]["step_num"] for event in events if event.get("name") == "step"}
    assert steps == {"1", "2"} if calls == 4 else {"1"}


def test_a_run_that_ends_before_the_first_traced_step_leaves_nothing(tmp_path):
    step = Profiled(lambda x: x, tmp_path / "trace", after=3)
    step(1)
    step.close()
    assert not (tmp_path / "trace").exists()
