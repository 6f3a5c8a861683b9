"""Which test modules need torch: jaxkd runs without it, and many tests compare with it."""

import ast
import functools
import importlib.util
import pathlib

HERE = pathlib.Path(__file__).parent
INSTALLED = importlib.util.find_spec("torch") is not None
BRIDGE = "jaxkd.export.torch_encoder"  # the module of jaxkd that is of torch
REASON = "compares with torch, which is not installed"


@functools.cache
def needing() -> frozenset[pathlib.Path]:
    """Files that import torch at their top, or a module that does."""
    imports = {file: _imports(file) for file in HERE.rglob("*.py")}
    names = {".".join(("tests", *f.relative_to(HERE).with_suffix("").parts)): f for f in imports}
    result: set[pathlib.Path] = set()
    while True:
        known = {"torch", BRIDGE} | {name for name, file in names.items() if file in result}
        more = {file for file, imported in imports.items() if imported & known}
        if more <= result:
            return frozenset(result | {HERE.parent / (BRIDGE.replace(".", "/") + ".py")})
        result |= more


def _imports(file: pathlib.Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules | {module.split(".")[0] for module in modules}


def by_a_test(error: ModuleNotFoundError) -> bool:
    """Whether it was a test that imported torch, and not jaxkd."""
    trace, last = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        last = last if name.startswith("<frozen importlib") else name
        trace = trace.tb_next
    return error.name == "torch" and pathlib.Path(last).is_relative_to(HERE)
