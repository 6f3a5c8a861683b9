"""Eight simulated devices, no network, and a place of its own for every cache."""

import atexit
import gc
import os
import pathlib
import shutil
import tempfile

import pytest

from tests import without_torch
from tests.xla import FAST_COMPILATION

# Runs that tests/stages/test_killed.py kills are compiled as they are for users.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 {FAST_COMPILATION}"
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# The same small programs are compiled by many tests; within a session once is enough. The workers
# of pytest-xdist inherit the folder from the process that starts them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _compiled = tempfile.mkdtemp(prefix="jaxkd-tests-")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
    # Many tests start processes that import all of jaxkd, which takes twice as long uncompiled.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(pathlib.Path(_compiled) / "bytecode")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def pytest_collection_finish():
    """What the libraries made when they were imported stays: a collection passes over it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    try:
        return (yield)
    except ModuleNotFoundError as error:
        if without_torch.INSTALLED or not without_torch.by_a_test(error):
            raise
        pytest.skip(without_torch.REASON)


@pytest.fixture(scope="module", autouse=True)
def _programs_of_one_module():
    """Compiled programs are let go after each module: of all of them a worker would hold 4 GB."""
    yield
    import jax

    from jaxkd.runtime.allocator import release

    jax.clear_caches()
    gc.collect()
    release()
