"""Packages that only the extras `onnx` and `export` install, imported when they are needed."""

import importlib
import types


def extra(name: str) -> types.ModuleType:
    """Import a package that only the extras `onnx` and `export` install.

    Raises:
      ModuleNotFoundError: if it is not there; says how to get it.
    """
    part = "export" if name == "torch" else "onnx"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"exporting needs {name} ({error}). Install it with: pip install 'jaxkd[{part}]'"
        ) from error
