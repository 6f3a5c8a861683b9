"""The recipes of docs/extend.md, written as files outside the tree, as their readers would."""

import importlib.util
import pathlib
import re
import sys
from types import ModuleType

ROOT = pathlib.Path(__file__).parents[2]


def codes() -> dict[str, str]:
    """Each recipe's Python code by its heading, in lower case and without the article."""
    by_name = {}
    for section in re.split(r"^## ", (ROOT / "docs/extend.md").read_text(), flags=re.M)[1:]:
        code = re.findall(r"^```python\n(.*?)^```", section, flags=re.M | re.S)
        name = section.partition("\n")[0].lower().split(" ", 1)[1].replace(" ", "_")
        assert len(code) == 1, f"docs/extend.md, {name}: one file a recipe"
        by_name[name] = code[0]
    return by_name


def write(name: str, folder: pathlib.Path) -> pathlib.Path:
    file = folder / f"{name}.py"
    file.write_text(codes()[name])
    return file


def load(name: str, folder: pathlib.Path) -> ModuleType:
    """The recipe as a module from a file outside the tree."""
    module_name = f"recipe_{name}"
    spec = importlib.util.spec_from_file_location(module_name, write(name, folder))
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
