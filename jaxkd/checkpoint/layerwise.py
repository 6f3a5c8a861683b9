"""One Orbax composite a model: `embed`, `block_00` ..., `head`, each restorable alone.

An encoder-decoder has `encoder_embed`, `encoder_block_00` ... beside them, and those are the
decoder's. An element without parameters is not written.

A training checkpoint adds `state` (step and optimiser) and `data` (where the input stands). All
have `model`, the description that rebuilds the model.
"""

import logging
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxkd.core.tree import named

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax reports each file it writes

Params = dict[str, Any]


def parts_of(params: Params) -> dict[str, Any]:
    """The named elements of a model: embed, block_00 ..., head."""
    inner = parts_of(params["encoder"] | {"head": {}}) if "encoder" in params else {}
    blocks = {f"block_{i:02d}": block for i, block in enumerate(params["blocks"])}
    parts = {"embed": params["embed"], **blocks, "head": params["head"]}
    parts |= {f"encoder_{name}": part for name, part in inner.items()}
    return {name: part for name, part in parts.items() if jax.tree.leaves(part)}


def save(
    folder: pathlib.Path,
    params: Params,
    model: dict[str, Any],
    *,
    state: Any = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint into `folder`, which must not exist; returns when it is on disk."""
    if jax.process_count() > 1:  # Orbax takes an array on one device for a part of one
        params, state = jax.tree.map(np.asarray, (params, state))
    items = {name: ocp.args.StandardSave(part) for name, part in parts_of(params).items()}
    items["model"] = ocp.args.JsonSave(model)
    if state is not None:
        items["state"] = ocp.args.StandardSave(state)
    if data is not None:
        items["data"] = ocp.args.JsonSave(data)
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=_alone())
    )
    with ocp.Checkpointer(handler, multiprocessing_options=_alone()) as checkpointer:
        checkpointer.save(folder.absolute(), args=ocp.args.Composite(**items))


def _alone() -> ocp.options.MultiprocessingOptions:
    """This process does it, and waits for no other one there may be."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"alone-{own}"
    )


def load_part(
    folder: pathlib.Path, name: str, template: Any = None, *, on_host: bool = False
) -> Any:
    """One element ("embed", "block_03", "head", "state") alone.

    Args:
      template: a tree of arrays or ShapeDtypeStructs, for what is not plain dicts and lists.
      on_host: give numpy arrays, to be placed on several devices; else on the default device.
    Raises:
      FileNotFoundError: if the checkpoint has no such element; says which it has.
      ValueError: if an array has another shape than the template's.
    """
    path = folder.absolute() / name
    if not path.is_dir():
        there = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        raise FileNotFoundError(f"{folder} has no element {name!r}. It has: {', '.join(there)}.")
    with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree if template is None else template
        # Orbax reads as numpy what looks like it, and then does not compare shapes.
        like = jax.tree.map(
            lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape),
            tree,
            is_leaf=lambda x: hasattr(x, "shape"),
        )
        found = checkpointer.restore(path, like)
    for (where, wanted), leaf in zip(named(like).items(), jax.tree.leaves(found), strict=True):
        if np.shape(leaf) != wanted.shape:
            raise ValueError(
                f"{path}: {where} has the shape {np.shape(leaf)}, needed is {wanted.shape}."
            )
    return found if on_host else jax.device_put(found, jax.local_devices()[0])


def load_json(folder: pathlib.Path, name: str) -> dict[str, Any]:
    """The `model` or `data` element."""
    handler = ocp.JsonCheckpointHandler(multiprocessing_options=_alone())
    with ocp.Checkpointer(handler, multiprocessing_options=_alone()) as checkpointer:
        return checkpointer.restore(folder.absolute() / name, args=ocp.args.JsonRestore())


def blocks_in(folder: pathlib.Path, side: str = "") -> list[str]:
    """Names of the elements that are blocks, in order; `side` is "" or "encoder_"."""
    names = (p.name for p in folder.iterdir() if p.name.startswith(f"{side}block_"))
    return sorted(names, key=lambda name: int(name.rsplit("_", 1)[1]))


def load(folder: pathlib.Path, *, on_host: bool = False) -> tuple[Params, dict[str, Any]]:
    """All parameters and the model's description; `on_host` as of `load_part`."""

    def part(name: str) -> Any:
        there = (folder / name).is_dir()
        return load_part(folder, name, on_host=on_host) if there else {}

    def side(prefix: str) -> Params:
        blocks = [part(name) for name in blocks_in(folder, prefix)]
        return {"embed": part(f"{prefix}embed"), "blocks": blocks}

    params = side("") | {"head": part("head")}
    if blocks_in(folder, "encoder_"):
        params["encoder"] = side("encoder_")
    return params, load_json(folder, "model")


def nbytes(tree: Any) -> int:
    """Bytes the tree takes on disk, at most."""
    return sum(int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
