"""One Orbax composite a model: `embed`, `block_00` ..., `head`, each restorable alone.

The elements are the model's parts (models/parts.py): further heads by their names, and of an
encoder-decoder `encoder_embed`, `encoder_block_00` ... A part without parameters is not written.

A training checkpoint adds `state` (step and optimiser) and `data` (validation losses so far). All
have `model`, the description that rebuilds the model.
"""

import functools
import logging
import pathlib
from typing import Any

import jax
import numpy as np

from jaxkd.core.tree import named
from jaxkd.models import families
from jaxkd.models.parts import Params, join, parts

_OTHERS = ("model", "state", "data")  # elements that are no parts


@functools.cache
def _orbax() -> Any:
    """Orbax, which takes a quarter of a second to import: --help and --show need not wait."""
    import orbax.checkpoint

    logging.getLogger("absl").setLevel(logging.ERROR)  # it reports each file it writes
    return orbax.checkpoint


def _heads(model: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of a described model's heads, and of its encoder's."""
    if "family" not in model:
        return ("head",), ()
    built = families.build(families.from_description(model))
    return tuple(built.heads), built.encoder_heads


def save(
    folder: pathlib.Path,
    params: Params,
    model: dict[str, Any],
    *,
    state: Any = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint into `folder`, which must not exist; returns when it is on disk.

    Args:
      model: as `families.describe` gives it; {} is a model with no head but "head".
    Raises:
      ValueError: if the parameters have a key that is no part of that model.
    """
    if jax.process_count() > 1:  # Orbax takes an array on one device for part of one
        params, state = jax.tree.map(np.asarray, (params, state))
    ocp = _orbax()
    items = {
        name: ocp.args.StandardSave(part) for name, part in parts(params, *_heads(model)).items()
    }
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


def _alone() -> Any:
    """Options for this process alone, which then waits for no other."""
    if jax.process_count() == 1:
        return _orbax().options.MultiprocessingOptions()
    own = jax.process_index()
    return _orbax().options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"alone-{own}"
    )


def load_part(
    folder: pathlib.Path, name: str, template: Any = None, *, on_host: bool = False
) -> Any:
    """One element ("embed", "block_03", "head", "state") alone.

    Args:
      template: a tree of arrays or ShapeDtypeStructs, for other than plain dicts and lists.
      on_host: numpy arrays, to be placed on several devices; else on the default device.
    Raises:
      FileNotFoundError: if the checkpoint has no such element; names those it has.
      ValueError: if an array has another shape than the template's.
    """
    path = folder.absolute() / name
    if not path.is_dir():
        names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        raise FileNotFoundError(f"{folder} has no element {name!r}. It has: {', '.join(names)}.")
    with _orbax().StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree if template is None else template
        # Orbax restores numpy arrays for numpy templates, and then does not compare shapes.
        like = jax.tree.map(
            lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape),
            tree,
            is_leaf=lambda x: hasattr(x, "shape"),
        )
        restored = checkpointer.restore(path, like)
    for (where, needed), leaf in zip(named(like).items(), jax.tree.leaves(restored), strict=True):
        if np.shape(leaf) != needed.shape:
            raise ValueError(
                f"{path}: {where} has the shape {np.shape(leaf)}, needed is {needed.shape}."
            )
    return restored if on_host else jax.device_put(restored, jax.local_devices()[0])


def load_json(folder: pathlib.Path, name: str) -> dict[str, Any]:
    """The `model` or `data` element."""
    ocp = _orbax()
    handler = ocp.JsonCheckpointHandler(multiprocessing_options=_alone())
    with ocp.Checkpointer(handler, multiprocessing_options=_alone()) as checkpointer:
        return checkpointer.restore(folder.absolute() / name, args=ocp.args.JsonRestore())


def load(folder: pathlib.Path, *, on_host: bool = False) -> tuple[Params, dict[str, Any]]:
    """All parameters and the model's description; `on_host` as of `load_part`.

    Raises:
      ValueError: if an element is no part of the model, or a block is missing; names the folder.
    """
    model = load_json(folder, "model")
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in _OTHERS)
    loaded = {name: load_part(folder, name, on_host=on_host) for name in names}
    try:
        return join(loaded, *_heads(model)), model
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def nbytes(tree: Any) -> int:
    """Bytes of the tree on disk, at most."""
    return sum(int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
