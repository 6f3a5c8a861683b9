"""A HuggingFace folder (config.json, model.safetensors) to our config and parameters, and back."""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from safetensors.numpy import load_file, save_file

from jaxkd.core.names import did_you_mean
from jaxkd.hub import bert
from jaxkd.models import families
from jaxkd.models.model import Params

_HUB = {"bert": bert}  # model_type -> module with TABLE, from_hub, to_hub
_FILES = ["config.json", "model.safetensors"]


def find(name: str) -> pathlib.Path:
    """A local folder of that name, or the hub's repository, downloaded or cached.

    Raises:
      FileNotFoundError: if neither can be had; says why and what to do.
    """
    folder = pathlib.Path(name)
    if folder.is_dir():
        missing = [file for file in _FILES if not (folder / file).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder} has no {' and no '.join(missing)}; a model folder holds "
                f"{' and '.join(_FILES)}, as save_pretrained writes them."
            )
        return folder
    import huggingface_hub

    try:
        return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # the hub raises its own, httpx's and requests' kinds
        raise FileNotFoundError(
            f"{name!r} is no folder here and could not be had from the HuggingFace hub "
            f"({type(error).__name__}). Give a folder with {' and '.join(_FILES)}, or go online "
            "once so that it is cached."
        ) from error


def load(name: str) -> tuple[families.Config, Params]:
    """Config and parameters of a folder or hub id.

    Raises:
      FileNotFoundError: see `find`.
      KeyError, ValueError: for a tensor without a place, a parameter without a source, or a
        config value that is not implemented.
    """
    folder = find(name)
    found = json.loads((folder / "config.json").read_text())
    kind = found.get("model_type", "(none)")
    if kind not in _HUB:
        raise ValueError(f"{folder}: model_type {kind!r} is unknown. {did_you_mean(kind, _HUB)}")
    config = _HUB[kind].from_hub(found)
    model = families.build(config)
    params = _HUB[kind].TABLE.load(
        load_file(folder / "model.safetensors"),
        jax.eval_shape(lambda: model.init(0)),
        origin=str(folder),
        family=kind,
    )
    return config, params


def save(
    folder: pathlib.Path,
    config: families.Config,
    params: Params,
    *,
    save_tokenizer: Callable[[pathlib.Path], Any] | None = None,
) -> None:
    """Write a folder that `transformers.AutoModelForMaskedLM.from_pretrained` opens."""
    hub = _HUB[families.describe(config)["family"]]
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / ".model.safetensors.tmp"
    save_file(hub.TABLE.export(params), unfinished, metadata={"format": "pt"})
    os.replace(unfinished, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hub.to_hub(config), indent=2) + "\n")
    if save_tokenizer is not None:
        save_tokenizer(folder)
