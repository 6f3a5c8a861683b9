"""A HuggingFace folder (config.json and weights) to our config and parameters, and back."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from jaxkd.core.names import did_you_mean
from jaxkd.core.tree import named
from jaxkd.hub import albert, bert, distilbert, gpt2, llama, qwen, roberta, seq2seq
from jaxkd.hub.family import Family
from jaxkd.hub.tensors import FILES, TORCH, open_tensors
from jaxkd.models import families
from jaxkd.models.config import DTYPES
from jaxkd.models.model import Params

HUB: dict[str, Family] = {  # model_type -> its keys and names
    family.model_type: family
    for module in (bert, distilbert, roberta, albert, gpt2, llama, qwen, seq2seq)
    for family in module.FAMILIES
}


def find(name: str) -> pathlib.Path:
    """A local folder of that name, or the hub's repository, downloaded or cached.

    Raises:
      FileNotFoundError: if neither can be had; says why and what to do.
    """
    folder = pathlib.Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{folder} has no config.json; a model folder holds config.json and its weights, "
                "as save_pretrained writes them."
            )
        return folder
    import huggingface_hub

    def fetch(*patterns: str) -> pathlib.Path:
        return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=list(patterns)))

    try:
        folder = fetch(*FILES)
        return folder if any(folder.glob("*.safetensors")) else fetch("config.json", TORCH)
    except Exception as error:  # the hub raises its own, httpx's and requests' kinds
        raise FileNotFoundError(
            f"{name!r} is no folder here and could not be had from the HuggingFace hub "
            f"({type(error).__name__}). Give a folder as save_pretrained writes it, or go online "
            "once so that it is cached."
        ) from error


def load(
    name: str,
    *,
    head: str = "",
    labels: Sequence[str] = (),
    seed: int = 0,
    dtype: str = "float32",
    sharding: Callable[[str], jax.sharding.Sharding | None] = lambda name: None,
    on_host: bool = False,
    warn: Callable[[str], Any] = lambda told: None,
) -> tuple[families.Config, Params]:
    """Config and parameters of a folder or hub id.

    Args:
      head: put this head on the model (see models/heads.py) and leave out the one that was there.
        Parameters of it that the checkpoint lacks, or has in another shape, are drawn from `seed`.
        Empty: the checkpoint's own head.
      labels: names of a classification head's classes, if they are others than the checkpoint's.
      dtype: of the parameters, float32 or bfloat16. Training wants float32; a teacher that only
        predicts takes half the memory in bfloat16.
      sharding: where each parameter goes, by its name ("blocks/0/attention/query/kernel"); None:
        the default device. Tensors are read one at a time and go straight there.
      on_host: give numpy arrays instead.
      warn: is told which parameters of the head were drawn.
    Raises:
      FileNotFoundError: see `find`.
      KeyError, ValueError: for a tensor without a place, a parameter without a source, or a
        config value that is not implemented.
    """
    folder = find(name)
    found = json.loads((folder / "config.json").read_text())
    kind = found.get("model_type", "(none)")
    if kind not in HUB:
        raise ValueError(f"{folder}: model_type {kind!r} is unknown. {did_you_mean(kind, HUB)}")
    family, tensors = HUB[kind], open_tensors(folder)
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}. {did_you_mean(dtype, DTYPES)}")
    if head and head not in family.heads:
        raise ValueError(f"{kind}: head={head!r}. {did_you_mean(head, family.heads)}")
    given = {"labels": tuple(labels)} if labels else {}
    config = family.from_hub(found, head=head or family.head(found, list(tensors)), **given)
    model = families.build(config)
    # Compiled for the head alone, which leaves the rest of the model undrawn.
    draw = jax.jit(lambda: {"head": model.init(seed, "new head")["head"]})
    optional = family.heads[config.head].optional
    fresh = named(draw()) if head or labels or optional else {}
    if not head and not labels:
        fresh = {name: fresh[name] for name in optional}
    params = family.table(config.head, other_heads=bool(head)).load(
        _Renamed(tensors, family.full(list(tensors))),
        jax.eval_shape(lambda: model.init(0)),
        origin=str(folder),
        family=kind,
        fresh=fresh,
        warn=lambda drawn: warn(f"{name}: a new head for {config.head} is drawn: {drawn}"),
        dtype=DTYPES[dtype],
        sharding=sharding,
        on_host=on_host,
    )
    return config, params


def save(
    folder: pathlib.Path,
    config: families.Config,
    params: Params,
    *,
    save_tokenizer: Callable[[pathlib.Path], Any] | None = None,
) -> None:
    """Write a folder that `from_pretrained` of the class in its `architectures` opens."""
    kind = families.describe(config)["family"]
    if kind not in HUB:
        raise ValueError(
            f"transformers has no model of the family {kind}; it is kept in checkpoints of ours. "
            f"Families that can be written: {', '.join(HUB)}."
        )
    family = HUB[kind]
    if config.head not in family.heads:
        raise ValueError(
            f"transformers has no {kind} with the head {config.head}; it is kept in checkpoints of "
            f"ours. Heads that can be written: {', '.join(family.heads)}."
        )
    described = family.to_hub(config)  # first: it refuses what cannot be written
    folder.mkdir(parents=True, exist_ok=True)
    exported = family.table(config.head).export(params)
    tensors = {family.stored(name, config.head): array for name, array in exported.items()}
    unfinished = folder / ".model.safetensors.tmp"
    save_file(tensors, unfinished, metadata={"format": "pt"})
    os.replace(unfinished, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    if save_tokenizer is not None:
        save_tokenizer(folder)


@dataclasses.dataclass(frozen=True)
class _Renamed(Mapping[str, np.ndarray]):
    """The same tensors, still read one at a time, under other names."""

    tensors: Mapping[str, np.ndarray]
    names: Mapping[str, str]  # new -> old

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[self.names[name]]

    def __iter__(self):
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
