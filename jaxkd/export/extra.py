"""Packages that only the extra `export` installs, imported when they are needed."""

import importlib
import types


def extra(name: str) -> types.ModuleType:
    """Import a package that only the extra `export` installs.

    Raises:
      ModuleNotFoundError: if it is not there; says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"exporting needs {name} ({error}). Install it with: pip install 'jaxkd[export]'"
        ) from error
