"""A narrower student: the most important heads, feed-forward channels and hidden channels.

Importance is measured on calibration batches, forward only. Source: Muralidharan et al. (2024),
arXiv:2407.14679 (Minitron), section 2.2.
"""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.core.batch import Batch
from jaxkd.core.outputs import Outputs
from jaxkd.core.tree import map_named, named
from jaxkd.models import axes, families
from jaxkd.models.model import Model, Params, forward

# Which channels an axis has, by its letter in models/axes.py; None: it is not cut. A letter that is
# not here belongs to a model that cannot be pruned in width.
_CHANNELS = {
    "D": "width",
    "M": "width",
    "HK": "heads",
    "GK": "groups",
    "F": "feed_forward",
    **dict.fromkeys(("V", "P", "T", "C", "K", "1")),
}


@dataclasses.dataclass(frozen=True)
class Kept:
    """Which of a model's channels are kept, in their old order."""

    width: np.ndarray  # hidden channels, of the whole model
    heads: list[np.ndarray]  # of each block
    feed_forward: list[np.ndarray]  # of each block


@dataclasses.dataclass(frozen=True)
class Importance:
    """The importance of each head and channel on the calibration batches; larger is more."""

    width: np.ndarray  # [D]: mean |hidden state| over positions and states, each over its RMS
    heads: np.ndarray  # [N, H]: mean L2 norm of a head's weighted values
    feed_forward: np.ndarray  # [N, F]: mean |activation|


def narrowed(config: families.Config, heads: int, feed_forward: int, width: int) -> families.Config:
    """The config of the narrower model; 0 keeps the source's size.

    Raises:
      ValueError: for a family or a size that cannot be cut so.
    """
    model = families.build(config)
    names = named(model.shapes)
    letters = {
        letter for name, leaf in names.items() for letter in axes.axes(name, len(leaf.shape))
    }
    if model.encoder is not None or model.shared or letters - _CHANNELS.keys():
        raise ValueError(
            "width pruning needs one list of blocks with parameters of their own and one "
            f"feed-forward each; {config.family} has another structure. Prune its blocks (Prune), "
            "or start from bert, distilbert, roberta, modernbert, gpt2, llama, qwen2 or qwen3."
        )
    if config.feed_forwards:
        raise ValueError(
            f"the source's feed_forwards differ ({config.feed_forwards}): width pruning measures "
            "blocks of one shape. Prune the model they were cut from."
        )
    sizes = {"heads": heads, "feed_forward": feed_forward, "width": width}
    for name, value in sizes.items():
        if not 0 <= value <= getattr(config, name):
            raise ValueError(f"{name} is {value}; the source has {getattr(config, name)}.")
    changes = {name: value for name, value in sizes.items() if value}
    each = _queries_per_group(config)
    if heads % each:
        raise ValueError(f"heads is {heads}; each key and value serves {each}: keep a multiple.")
    if hasattr(config, "head_width") and getattr(config, "rotary", False):
        changes["head_width"] = config.key_width  # stored apart from the width
        changes["kv_heads"] = (heads or config.heads) // each
    narrow = dataclasses.replace(config, **changes)
    size = config.key_width
    if "head_width" not in changes and narrow.width != narrow.heads * size:
        raise ValueError(
            f"width {narrow.width} with {narrow.heads} heads: heads of a {config.family} share the "
            f"width, and these are {size} wide, so keep {narrow.heads} x {size} = "
            f"{narrow.heads * size} channels or {narrow.width / size:g} heads."
        )
    narrow.check()
    return narrow


def importance(model: Model, params: Params, batches: Iterable[Batch]) -> Importance:
    """Means over all positions that count, of all batches; the head's predictions are not used."""

    @jax.jit
    def sums(params: Params, batch: Batch) -> tuple[Any, Any]:
        outputs = forward(model, params, batch)
        counted = batch.mask

        def total(values: Any) -> Any:  # [B, L, ...] -> [...], in float32
            mask = counted.reshape(*counted.shape, *(1,) * (values.ndim - 2))
            return jnp.sum(jnp.where(mask, values.astype(jnp.float32), 0.0), axis=(0, 1))

        return _activity(outputs, total), jnp.sum(counted, dtype=jnp.float32)

    totals = jax.device_get([sums(params, batch) for batch in batches])
    count = max(sum(n for _, n in totals), 1.0)
    merged = jax.tree.map(lambda *parts: sum(parts) / count, *(values for values, _ in totals))
    return Importance(**merged)


def _activity(outputs: Outputs, total: Any) -> dict[str, Any]:
    def size(hidden: Any) -> Any:
        hidden = jnp.abs(hidden.astype(jnp.float32))
        # States of decoders grow with depth, and each block normalises its input.
        return hidden / jnp.sqrt(jnp.mean(hidden**2, axis=-1, keepdims=True) + 1e-12)

    heads = outputs.qkv[0][0].shape[1]

    def norms(context: Any) -> Any:
        split = context.astype(jnp.float32).reshape(*context.shape[:2], heads, -1)
        return jnp.linalg.norm(split, axis=-1)

    return {
        "width": sum(total(size(hidden)) for hidden in outputs.hidden) / len(outputs.hidden),
        "heads": jnp.stack([total(norms(context)) for context in outputs.context]),
        "feed_forward": jnp.stack([total(jnp.abs(x)) for x in outputs.ffn_activations]),
    }


def choose(config: families.Config, narrow: families.Config, scores: Importance) -> Kept:
    """The most important ones; each block chooses its own heads and channels."""
    each = _queries_per_group(config)
    groups = scores.heads.reshape(len(scores.heads), -1, each).sum(-1)
    return Kept(
        _largest(scores.width, narrow.width),
        [_expanded(_largest(of, narrow.heads // each), each) for of in groups],
        [_largest(of, narrow.block(i).feed_forward) for i, of in enumerate(scores.feed_forward)],
    )


def prune_width(config: families.Config, params: Params, kept: Kept) -> Params:
    """The parameters of the kept channels: slices of the arrays, nothing is computed."""
    each = _queries_per_group(config)
    size = config.key_width

    def cut(name: str, leaf: Any) -> Any:
        block = re.match(r"blocks/(\d+)/", name)
        channels: dict[str, Any] = {"width": kept.width}
        if block:
            heads = kept.heads[int(block[1])]
            channels["heads"] = _expanded(heads, size)
            channels["groups"] = _expanded(np.unique(heads // each), size)
            channels["feed_forward"] = kept.feed_forward[int(block[1])]
        for axis, letter in enumerate(axes.axes(name, leaf.ndim)):
            kind = _CHANNELS[letter]
            leaf = leaf if kind is None else jnp.take(leaf, channels[kind], axis=axis)
        return leaf

    return map_named(cut, params)


def _queries_per_group(config: families.Config) -> int:
    return config.heads // (getattr(config, "kv_heads", 0) or config.heads)


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest, ascending; among equals the first."""
    return np.sort(np.argsort(-np.asarray(values), kind="stable")[:count])


def _expanded(indices: np.ndarray, size: int) -> np.ndarray:
    """[2, 0] of size 3 -> [6, 7, 8, 0, 1, 2]."""
    return (np.asarray(indices)[:, None] * size + np.arange(size)).ravel()
