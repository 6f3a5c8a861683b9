"""One Orbax composite a model: `embed`, `block_00` ..., `head`, each restorable alone.

An encoder-decoder has `encoder_embed`, `encoder_block_00` ... beside them, and those are the
decoder's. An element without parameters is not written.

A training checkpoint adds `state` (step and optimiser) and `data` (where the input stands). All
have `model`, the description that rebuilds the model.
"""

import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax reports each file it writes

Params = dict[str, Any]
# A tree of numpy arrays -> the same where it is to lie. Leaves are named as in the model, but for
# the number of their block: "embed/token", "block/attention/query/kernel".
Put = Callable[[Any], Any]


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


def load_part(folder: pathlib.Path, name: str, template: Any = None, put: Put | None = None) -> Any:
    """One element ("embed", "block_03", "head", "state") alone.

    Args:
      template: a tree of arrays or ShapeDtypeStructs, for what is not plain dicts and lists.
      put: where its arrays go, straight from the host's memory; None: the default device.
    Raises:
      FileNotFoundError: if the checkpoint has no such element; says which it has.
    """
    path = folder.absolute() / name
    if not path.is_dir():
        there = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        raise FileNotFoundError(f"{folder} has no element {name!r}. It has: {', '.join(there)}.")
    with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree if template is None else template
        # What looks like a numpy array is read as one: no device ever has more than it is given.
        tree = jax.tree.map(
            lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape),
            tree,
            is_leaf=lambda x: hasattr(x, "shape"),
        )
        found = checkpointer.restore(path, tree)
    if put is None:
        return jax.device_put(found, jax.local_devices()[0])
    kind = name.removeprefix("encoder_").split("_")[0]
    return put({kind: found})[kind]


def load_json(folder: pathlib.Path, name: str) -> dict[str, Any]:
    """The `model` or `data` element."""
    handler = ocp.JsonCheckpointHandler(multiprocessing_options=_alone())
    with ocp.Checkpointer(handler, multiprocessing_options=_alone()) as checkpointer:
        return checkpointer.restore(folder.absolute() / name, args=ocp.args.JsonRestore())


def blocks_in(folder: pathlib.Path, side: str = "") -> list[str]:
    """Names of the elements that are blocks, in order; `side` is "" or "encoder_"."""
    names = (p.name for p in folder.iterdir() if p.name.startswith(f"{side}block_"))
    return sorted(names, key=lambda name: int(name.rsplit("_", 1)[1]))


def load(folder: pathlib.Path, put: Put | None = None) -> tuple[Params, dict[str, Any]]:
    """All parameters and the model's description; `put` as of `load_part`, an element at a time."""

    def part(name: str) -> Any:
        return load_part(folder, name, put=put) if (folder / name).is_dir() else {}

    def side(prefix: str) -> Params:
        blocks = [load_part(folder, name, put=put) for name in blocks_in(folder, prefix)]
        return {"embed": part(f"{prefix}embed"), "blocks": blocks}

    params = side("") | {"head": part("head")}
    if blocks_in(folder, "encoder_"):
        params["encoder"] = side("encoder_")
    return params, load_json(folder, "model")


def nbytes(tree: Any) -> int:
    """Bytes the tree takes on disk, at most."""
    return sum(int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
