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
from jaxkd.data.tokenizers.open_folder import SETTINGS
from jaxkd.data.tokenizers.saving import limit_length
from jaxkd.hub import (
    albert,
    bert,
    distilbert,
    generation,
    gpt2,
    llama,
    modernbert,
    qwen,
    roberta,
    seq2seq,
    t5,
)
from jaxkd.hub.family import Family
from jaxkd.hub.labels import match_labels, reorder_classes
from jaxkd.hub.sentence_transformers import read_pooling, transformer_folder, write_pooling
from jaxkd.hub.tensors import SAFETENSORS, TORCH_FILES, Renamed, open_tensors, read_json
from jaxkd.models import families
from jaxkd.models.config import DTYPES
from jaxkd.models.model import Params
from jaxkd.models.parts import exit_blocks

HUB: dict[str, Family] = {  # model_type -> its keys and names
    family.model_type: family
    for module in (bert, distilbert, roberta, albert, modernbert, gpt2, llama, qwen, seq2seq, t5)
    for family in module.FAMILIES
}
CONFIGS = ("config.json", generation.FILE, "modules.json", "*_Pooling/config.json")
WRITES = ("causal_lm", "seq2seq_lm")  # heads that transformers' `generate` takes


def register(family: Family) -> None:
    """Make a family of HuggingFace files known by its `model_type`; it may live anywhere.

    Raises:
      ValueError: if another family has that model_type.
    """
    known = HUB.setdefault(family.model_type, family)
    if known is not family:
        raise ValueError(
            f"model_type {family.model_type!r} is read as {known.config.__module__}."
            f"{known.config.__qualname__} already."
        )


def find(name: str) -> pathlib.Path:
    """The model folder of that name: a local one, or the hub's repository, downloaded or cached.

    Raises:
      FileNotFoundError: if neither can be had; says why and what to do.
      ValueError: for a damaged modules.json of sentence-transformers.
    """
    folder = pathlib.Path(name)
    if folder.is_dir():
        folder = transformer_folder(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{folder} has no config.json; a model folder holds config.json and its weights, "
                "as save_pretrained writes them."
            )
        return folder
    import huggingface_hub

    def fetch(*patterns: str) -> pathlib.Path:
        both = [p for pattern in patterns for p in (pattern, f"0_Transformer/{pattern}")]
        return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=both))

    try:
        folder = fetch(*CONFIGS, *SAFETENSORS)
        if not any(folder.rglob("*.safetensors")):
            folder = fetch(*CONFIGS, *TORCH_FILES)
    except Exception as error:  # the hub raises its own, httpx's and requests' kinds
        raise FileNotFoundError(
            f"{name!r} is no folder here and could not be had from the HuggingFace hub "
            f"({type(error).__name__}). Give a folder as save_pretrained writes it, or go online "
            "once so that it is cached."
        ) from error
    return transformer_folder(folder)


def load(
    name: str,
    *,
    head: str = "",
    labels: Sequence[str] = (),
    seed: int = 0,
    dtype: str = "float32",
    sharding: Callable[[str], jax.sharding.Sharding | None] = lambda name: None,
    on_host: bool = False,
    warn: Callable[[str], Any] = lambda message: None,
    new_parameters: Callable[[Sequence[str]], Any] = lambda names: None,
) -> tuple[families.Config, Params]:
    """Config and parameters of a folder or hub id.

    Args:
      head: put this head on the model (see models/heads.py) and leave out the one that was there.
        Parameters of it that the checkpoint lacks, or has in another shape, are drawn from `seed`.
        Empty: the checkpoint's own head.
      labels: names of the classes that are needed, in order. A classifier of the same names in
        another order is reordered; of LABEL_0, LABEL_1 .. it is taken in its own order; of others
        a new one is drawn. `warn` is called with its name. Empty: the checkpoint's own.
      dtype: of the parameters, float32 or bfloat16. Training wants float32; a teacher that only
        predicts takes half the memory in bfloat16.
      sharding: where each parameter goes, by its name ("blocks/0/attention/query/kernel"); None:
        the default device. Tensors are read one at a time and go straight there.
      on_host: return numpy arrays instead.
      warn: called with a sentence for each thing that is not as the checkpoint says.
      new_parameters: called with the names of the parameters that were drawn, if there are any.
    Raises:
      FileNotFoundError: see `find`.
      ValueError: for a tensor that is no parameter, a parameter without a tensor, a damaged file,
        or a config value that is not implemented; names it.
    """
    folder = find(name)
    stored = read_json(folder / "config.json")
    kind = stored.get("model_type", "(none)")
    if kind not in HUB:
        raise ValueError(f"{folder}: model_type {kind!r} is unknown. {did_you_mean(kind, HUB)}")
    family, tensors = HUB[kind], open_tensors(folder)
    tensors = Renamed(tensors, family.full(list(tensors)))
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}. {did_you_mean(dtype, DTYPES)}")
    if head and head not in family.heads:
        raise ValueError(f"{kind}: head={head!r}. {did_you_mean(head, family.heads)}")
    config = family.from_hub(stored, head=head or family.head(stored, list(tensors)))
    config = dataclasses.replace(
        _untied(family, config, tensors, folder, warn),
        generation=generation.read_generation(folder, dict(family.absent) | stored)
        if any(each in config.known_heads for each in WRITES)
        else {},
        pooling=read_pooling(pathlib.Path(name), warn),
    )
    own_labels, extra = config.labels, ()
    if labels:
        config = dataclasses.replace(config, labels=tuple(labels))
    if head:  # what belongs to heads that are unknown here, such as question answering
        known = family.table(config.head, other_heads=True)
        extra = [n for n in tensors if not n.startswith(f"{family.prefix}.") and not known.has(n)]
        if extra:
            warn(f"{name}: tensors of another head are left out: {', '.join(sorted(extra))}")
    model = families.build(config)
    # Compiled for the head alone, which leaves the rest of the model undrawn.
    drawn_parts = ("head", *exit_blocks(model.heads))
    draw = jax.jit(lambda: {part: model.init(seed, "new head")[part] for part in drawn_parts})
    optional = family.heads[config.head].optional
    fresh = named(draw()) if head or labels or optional else {}
    if not head and not labels:
        fresh = {name: fresh[name] for name in optional}
    classified = "head/classify" in family.heads[config.head].modules and any(
        n.startswith(f"{family.heads[config.head].modules['head/classify']}.") for n in tensors
    )

    def say_new(names: Sequence[str]) -> None:
        warn(f"{name}: a new head for {config.head} is drawn: {', '.join(names)}")
        new_parameters(names)

    names = dict(other_heads=bool(head), extra=extra, exits=config.exits)
    params = family.table(config.head, **names).load(
        tensors,
        model.shapes,
        origin=str(folder),
        family=kind,
        fresh=fresh,
        new_parameters=say_new,
        dtype=DTYPES[dtype],
        sharding=sharding,
        on_host=on_host,
    )
    if labels and classified and len(own_labels) == len(labels):
        order = match_labels(name, own_labels, labels, warn)
        params = reorder_classes(params, order, None if order else fresh)
        if not order:
            new_parameters([each for each in fresh if "/classify/" in each])
    return config, params


def _untied(
    family: Family,
    config: families.Config,
    tensors: Mapping[str, np.ndarray],
    folder: pathlib.Path,
    warn: Callable[[str], Any],
) -> families.Config:
    """The config, untied where the file holds a head of its own, as transformers 5 reads it.

    Raises:
      ValueError: if the family cannot have such a head, or another copy differs.
    """
    if not getattr(config, "tied", True):
        return config
    other = family.other_copies(tensors, config.head)
    head = family.heads[config.head].modules.get("head/output")
    if other and other == [f"{head}.weight"]:
        warn(f"{folder}: {other[0]} is not the token embedding; the head is loaded untied")
        return dataclasses.replace(config, tied=False)
    if other:
        copies = family.heads[config.head].copies
        raise ValueError(
            f"{folder}: {other[0]} differs from {copies[other[0]]}; {family.model_type} has one "
            "tensor for both. Save the model with the two tied, or use a family that can be untied."
        )
    return config


def save(
    folder: pathlib.Path,
    config: families.Config,
    params: Params,
    *,
    save_tokenizer: Callable[[pathlib.Path], Any] | None = None,
) -> None:
    """Write a folder that `from_pretrained` of the class in its `architectures` opens.

    A model that writes text gets generation_config.json: what its source said, and where that says
    nothing the tokenizer's beginning and end. A bare encoder whose source was a
    sentence-transformers folder becomes one.

    Args:
      save_tokenizer: writes the tokenizer into the folder it is called with.
    Raises:
      ValueError: if transformers has no such family or head.
    """
    family = family_of(config)
    family.to_hub(config)  # first: it refuses what cannot be written
    folder.mkdir(parents=True, exist_ok=True)
    if save_tokenizer is not None:
        save_tokenizer(folder)
        if (folder / SETTINGS).is_file():
            limit_length(folder, config.positions_for_tokens)
    writes = config.head in WRITES
    if writes and save_tokenizer is not None and "eos_token_id" not in config.generation:
        import transformers

        known = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        merged = generation.tokens_of(known) | dict(config.generation)
        config = dataclasses.replace(config, generation=merged)
    config, params = config.for_hub(params)
    described = family.to_hub(config)
    exported = family.table(config.head, exits=config.exits).export(params)
    tensors = {family.stored(name, config.head): array for name, array in exported.items()}
    unfinished = folder / ".model.safetensors.tmp"
    save_file(tensors, unfinished, metadata={"format": "pt"})
    os.replace(unfinished, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    if writes:
        generation.write_generation(folder, described, config.generation)
    if config.head == "bare":
        write_pooling(folder, config.pooling, config.width, config.positions_for_tokens)


def family_of(config: families.Config) -> Family:
    """The family that a config is written as.

    Raises:
      ValueError: if transformers has no such family, or no such head of it.
    """
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
    return family
