"""Residency under a budget, and a process that is not allowed the memory of its model's weights."""

import json
import pathlib
import platform
import resource
import subprocess
import sys

import numpy as np
import pytest

from jaxkd.device import memory
from jaxkd.device.bundle import Bundle
from jaxkd.device.errors import NoMemory
from jaxkd.device.residency import TIME, plan
from jaxkd.models import families
from tests.device import bundles

ROOT = pathlib.Path(__file__).parents[2]
LIMITED = ROOT / "benchmarks" / "limited.py"


def limited(folder, megabytes):
    command = [sys.executable, str(LIMITED), "bundle", str(folder), str(megabytes), "128"]
    return subprocess.run(
        command, capture_output=True, text=True, env={"MALLOC_ARENA_MAX": "1", "PATH": ""}
    )


@pytest.mark.slow
@pytest.mark.parametrize("weights, megabytes", [("float32", 40), ("int8", 30)])
def test_twelve_blocks_run_in_less_memory_than_their_weights(weights, megabytes, tmp_path):
    config = bundles.config_of(
        "bert", "sequence_classification", layers=12, width=512, heads=8, feed_forward=2048,
        max_length=128,
    )  # fmt: skip
    params = families.build(config).init(0)
    bundles.write(tmp_path / "b", config, weights, params=params)
    size = sum(file.stat().st_size for file in (tmp_path / "b" / "weights").glob("block*"))
    assert size > 1.1 * megabytes * 1e6  # 151 and 38 MB
    done = limited(tmp_path / "b", megabytes)
    assert done.returncode == 0, done.stderr[-500:]
    logits, tiers = json.loads(done.stdout)
    assert set(tiers) == {"streamed"}
    ids = np.arange(128)[None] % 97
    free = Bundle(tmp_path / "b", threads=1).model(ids, np.ones_like(ids))
    np.testing.assert_allclose(np.array(logits), free.logits, atol=1e-4)
    # The limit is real: with less than a layer's work needs there is no answer.
    done = limited(tmp_path / "b", 2)
    assert done.returncode != 0 and "memory" in done.stderr.lower()


GROWTH = """
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import numpy as np, onnxruntime
from jaxkd.device import memory
from jaxkd.device.bundle import Bundle
before = memory.process()["anonymous"]
bundle = Bundle(sys.argv[2], threads=1)
ids = np.arange(16)[None]
bundle.model(ids, np.ones_like(ids))
memory.trim()
print(memory.process()["anonymous"] - before)
"""


@pytest.mark.parametrize("weights, cost", [("float32", 1.2), ("float16", 2.2), ("int8", 1.2)])
def test_a_resident_block_takes_what_the_plan_counts(weights, cost, tmp_path):
    config = bundles.config_of(
        "bert", "sequence_classification", layers=5, width=512, heads=8, feed_forward=2048
    )
    params = families.build(config).init(0)
    bundles.write(tmp_path / "b", config, weights, params=params)
    size = sum(f.stat().st_size for f in (tmp_path / "b" / "weights").glob("block*"))
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(ROOT), str(tmp_path / "b")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    grown = int(done.stdout)
    assert size < grown < cost * size + 6e6  # and a few megabytes of onnxruntime's own


WRITING = """
import json, sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import numpy as np, onnxruntime
from jaxkd.device import memory
from jaxkd.device.bundle import Bundle
from jaxkd.device.decoding import Beam, search
bundle = Bundle(sys.argv[2], threads=1, window=True)
model, prompt, seen = bundle.model, np.arange(64), []
if hasattr(model, "read"):
    model.read(prompt[None], np.ones((1, 64), int))
    prompt = np.array([model.start])
begin, run = memory.process()["anonymous"], model.graphs.run
def watched(name, feeds):
    outputs = run(name, feeds)
    seen.append(memory.process()["anonymous"])
    return outputs
model.graphs.run = watched
search(model, Beam(width=8, max_tokens=150, min_tokens=150), prompt)
print(json.dumps([max(seen) - begin, bundle.model.state_bytes(8, 64 + 150)]))
"""


@pytest.mark.parametrize("family, head", [("gpt2", "causal_lm"), ("bart", "seq2seq_lm")])
def test_caches_and_logits_take_what_the_plan_counts(family, head, tmp_path):
    config = bundles.config_of(
        family, head, vocabulary=20_000, width=256, heads=4, feed_forward=256, max_length=256
    )
    bundles.write(tmp_path / "b", config, "float32", params=families.build(config).init(0))
    done = subprocess.run(
        [sys.executable, "-c", WRITING, str(ROOT), str(tmp_path / "b")],
        capture_output=True, text=True, env={"MALLOC_ARENA_MAX": "1", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    grown, counted = json.loads(done.stdout)
    assert 0.4 * counted < grown < counted + 10 * 2**20  # what working_bytes has for onnxruntime
    with pytest.raises(NoMemory):  # so a budget without room for them is refused at the start
        Bundle(tmp_path / "b", counted, length=64, beam=8, tokens=150)
    Bundle(tmp_path / "b", 200e6, length=64, beam=8, tokens=150)


def test_every_budget_keeps_what_it_promises_and_more_is_never_slower():
    sizes = [70, 100, 100, 40, 100]
    times = []
    for budget in range(0, 1500, 10):
        try:
            tiers = plan(sizes, budget, 50)
        except NoMemory:
            assert budget < 150
            continue
        used = 50 + sum({"resident": 1.2, "mapped": 1.0}.get(t, 0) * s
                        for t, s in zip(tiers, sizes, strict=True))  # fmt: skip
        assert used + (100 if "streamed" in tiers else 0) <= budget
        assert tiers == sorted(tiers, key=list(TIME).index)  # the first are in the fastest
        times.append(sum(TIME[tier] for tier in tiers))
    assert times == sorted(times, reverse=True)
    assert times[0] == 10 and times[-1] == 5


def test_memory_is_read_from_the_system(tmp_path):
    status = tmp_path / "status"
    status.write_text("VmHWM:\t  30 kB\nVmRSS:\t  20 kB\nRssAnon:\t  15 kB\nRssFile:\t   5 kB\n")
    assert memory.process(str(status)) == {
        "peak": 30720, "resident": 20480, "anonymous": 15360, "file_backed": 5120,
    }  # fmt: skip
    assert memory.process(str(tmp_path / "none"))["peak"] is None
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 2000 kB\nMemAvailable: 1000 kB\n")
    assert memory.available(str(meminfo)) == 1024000
    assert memory.process()["peak"] > 0


def test_tiers_answer_alike_and_a_budget_is_kept(tmp_path):
    bundles.classifier(tmp_path / "b")
    ids = np.arange(1, 9)[None]
    answers = []
    for budget in (None, 30e6):
        bundle = Bundle(tmp_path / "b", budget)
        answers.append(bundle.model(ids, np.ones_like(ids)).logits)
    window = Bundle(tmp_path / "b", window=True)
    assert set(window.tiers) == {"streamed"}
    answers.append(window.model(ids, np.ones_like(ids)).logits)
    for other in answers[1:]:
        np.testing.assert_allclose(other, answers[0], atol=1e-6)
    with pytest.raises(NoMemory, match="one layer takes .* int8 weights need less"):
        Bundle(tmp_path / "b", 1e6)


FAULTS = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from jaxkd.device import memory
memory.keep_freed()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        arrays = [np.ones(3 * 2**20, np.uint8) for _ in range(4)]
        del arrays
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20
faults()
print(faults())
"""


@pytest.mark.parametrize(
    "user, least, most", [({}, 0, 0.01), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, 0.7, 1.3)]
)
def test_freed_memory_is_used_again_unless_the_user_says_otherwise(user, least, most):
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("not glibc")
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, str(ROOT)], capture_output=True, text=True, check=True,
        env={"PATH": "", "OPENBLAS_NUM_THREADS": "1"} | user,
    )  # fmt: skip
    pages = 12 * 2**20 / resource.getpagesize()
    assert least * pages <= float(done.stdout) <= most * pages
