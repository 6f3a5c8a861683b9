"""Eight simulated devices, no network, and a place of its own for every cache."""

import os

# Level 0 compiles in half the time and calls the same matrix kernels; programs started by a test
# (the experiments, the killed runs) are compiled as they are for users.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
