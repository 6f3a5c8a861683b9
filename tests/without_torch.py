"""Which test modules need torch: jaxkd runs without it, and many tests compare with it."""

import functools
import importlib.util
import pathlib
import re

HERE = pathlib.Path(__file__).parent
INSTALLED = importlib.util.find_spec("torch") is not None
_IMPORTS = re.compile(r"^(?:import|from) ([\w.]+)(?: import (\w+))?", re.MULTILINE)


@functools.cache
def needing() -> frozenset[pathlib.Path]:
    """Modules below tests/ that import torch, or a module that does."""
    imports = {file: _imports(file) for file in HERE.rglob("*.py")}
    names = {".".join(("tests", *f.relative_to(HERE).with_suffix("").parts)): f for f in imports}
    result: set[pathlib.Path] = set()
    while True:
        known = {"torch"} | {name for name, file in names.items() if file in result}
        more = {file for file, imported in imports.items() if imported & known}
        if more <= result:
            return frozenset(result)
        result |= more


def _imports(file: pathlib.Path) -> set[str]:
    modules = set()
    for module, name in _IMPORTS.findall(file.read_text()):
        modules |= {module, f"{module}.{name}", module.split(".")[0]}
    return modules
