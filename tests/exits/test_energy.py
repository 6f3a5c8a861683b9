"""Energy from counters in a folder laid out as Linux lays out RAPL's."""

import numpy as np
import pytest

from jaxkd.exits.energy import Counters
from jaxkd.exits.timing import interleaved, millijoules_a_row
from tests.models import tiny

RANGE = 1_000_000_000


def package(root, number, microjoules):
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "max_energy_range_uj").write_text(f"{RANGE}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def add(file, microjoules):
    file.write_text(f"{(int(file.read_text()) + microjoules) % RANGE}\n")


def test_joules_are_of_all_packages_and_not_of_their_parts(tmp_path):
    files = [package(tmp_path, 0, 5), package(tmp_path, 1, 7)]
    package(tmp_path, "0:0", 0)  # a part of the first, in its count already
    counters = Counters(tmp_path)
    assert not counters.missing
    before = counters.read()
    np.testing.assert_array_equal(before, [5, 7])
    add(files[0], 2_000_000)
    add(files[1], 500_000)
    assert counters.joules_since(before) == pytest.approx(2.5)


def test_a_counter_that_starts_again_is_counted_on(tmp_path):
    file = package(tmp_path, 0, RANGE - 1_000_000)
    counters = Counters(tmp_path)
    before = counters.read()
    add(file, 3_000_000)
    assert int(file.read_text()) < before[0]
    assert counters.joules_since(before) == pytest.approx(3.0)


def test_each_function_gets_the_energy_of_its_own_turn(tmp_path):
    file = package(tmp_path, 0, 0)
    batches = [tiny.batch(), tiny.batch()]
    rows = sum(batch.rows for batch in batches)
    functions = {
        "little": lambda batch: add(file, 1_000),
        "much": lambda batch: add(file, 50_000),
    }
    measured = interleaved(functions, batches, 3, Counters(tmp_path))
    assert millijoules_a_row(measured["little"], batches) == pytest.approx(2 * 1 / rows)
    assert millijoules_a_row(measured["much"], batches) == pytest.approx(2 * 50 / rows)


def test_without_counters_the_reason_is_kept(tmp_path):
    counters = Counters(tmp_path / "absent")
    assert "no energy counters" in counters.missing
    measured = interleaved({"a": lambda batch: None}, [tiny.batch()], 1, counters)
    assert millijoules_a_row(measured["a"], [tiny.batch()]) is None
    (package(tmp_path, 0, 0)).write_text("not a number\n")
    assert "cannot be read" in Counters(tmp_path).missing
