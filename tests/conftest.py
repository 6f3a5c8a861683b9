"""Eight simulated devices, no network, and a place of its own for every cache."""

import atexit
import os
import shutil
import tempfile

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
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
