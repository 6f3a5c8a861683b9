"""Flags under which XLA compiles in a third of the time and calls the same matrix kernels."""

import importlib.metadata

# One module of LLVM: several are for several idle cores.
FAST_COMPILATION = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # The older emitters; a version that does not know the flag ends at once.
    FAST_COMPILATION += " --xla_cpu_use_fusion_emitters=false"
