"""A narrower student: the attention heads, feed-forward channels and hidden channels that matter.

What matters is seen on a calibration batch, forward only. Source: Muralidharan et al. (2024),
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
from jaxkd.core.tree import map_named
from jaxkd.models import families
from jaxkd.models.model import Model, Params, forward

# What the axes of a parameter are rows of. "width" and "heads" of the whole model and of one
# block; a name that no rule knows is a model this cannot prune.
_RULES = (
    (r"attention/query/kernel", ("width", "heads")),
    (r"attention/(key|value)/kernel", ("width", "groups")),
    (r"attention/query/bias", ("heads",)),
    (r"attention/(key|value)/bias", ("groups",)),
    (r"attention/output/kernel", ("heads", "width")),
    (r"attention/(query|key)_norm/scale", (None,)),
    (r"feed_forward/(expand|gate)/kernel", ("width", "feed_forward")),
    (r"feed_forward/(expand|gate)/bias", ("feed_forward",)),
    (r"feed_forward/contract/kernel", ("feed_forward", "width")),
    (r"embed/(token|position|segment)|head/output", (None, "width")),
    (r"head/(transform|pool)/kernel", ("width", "width")),
    (r"head/classify/kernel", ("width", None)),
    (r"head/(bias|classify/bias)", (None,)),
    (r".*(norm|output|contract|transform|pool)/(scale|bias)", ("width",)),
)


@dataclasses.dataclass(frozen=True)
class Kept:
    """Which of a model's channels stay, in their old order."""

    width: np.ndarray  # hidden channels, of the whole model
    heads: list[np.ndarray]  # of each block
    feed_forward: list[np.ndarray]  # of each block


@dataclasses.dataclass(frozen=True)
class Importance:
    """What each head and channel did on the calibration batches; larger matters more."""

    width: np.ndarray  # [D]: mean |hidden state| over positions and states, by its position's size
    heads: np.ndarray  # [N, H]: mean L2 norm of what a head found
    feed_forward: np.ndarray  # [N, F]: mean |activation|


def narrowed(config: families.Config, heads: int, feed_forward: int, width: int) -> families.Config:
    """The config of the narrower model; 0 keeps what there is.

    Raises:
      ValueError: for a family or a size that cannot be cut so.
    """
    if config.family in ("albert", "marian", "bart", "lstm", "qwen2_moe"):
        raise ValueError(
            f"width pruning knows one list of blocks of their own, with one feed-forward each; "
            f"{config.family} has something else. Prune its blocks (Prune), or start from bert, "
            "distilbert, roberta, gpt2, llama, qwen2 or qwen3."
        )
    wanted = {"heads": heads, "feed_forward": feed_forward, "width": width}
    for name, value in wanted.items():
        if not 0 <= value <= getattr(config, name):
            raise ValueError(f"{name} is {value}; the source has {getattr(config, name)}.")
    changes = {name: value for name, value in wanted.items() if value}
    each = _queries_per_group(config)
    if heads % each:
        raise ValueError(f"heads is {heads}; each key and value serves {each}: keep a multiple.")
    own = getattr(config, "head_width", None)  # the family may say how wide a head is
    if own is not None and config.family != "gpt2":
        changes["head_width"] = own or config.width // config.heads
        changes["kv_heads"] = (heads or config.heads) // each
    narrow = dataclasses.replace(config, **changes)
    size = config.width // config.heads
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
            shown = counted.reshape(*counted.shape, *(1,) * (values.ndim - 2))
            return jnp.sum(jnp.where(shown, values.astype(jnp.float32), 0.0), axis=(0, 1))

        return _activity(outputs, total), jnp.sum(counted, dtype=jnp.float32)

    found = jax.device_get([sums(params, batch) for batch in batches])
    count = max(sum(n for _, n in found), 1.0)
    merged = jax.tree.map(lambda *parts: sum(parts) / count, *(values for values, _ in found))
    return Importance(**merged)


def _activity(outputs: Outputs, total: Any) -> dict[str, Any]:
    def size(hidden: Any) -> Any:
        hidden = jnp.abs(hidden.astype(jnp.float32))
        # States of decoders grow with depth, and each block sees them normalised.
        return hidden / jnp.sqrt(jnp.mean(hidden**2, axis=-1, keepdims=True) + 1e-12)

    heads = outputs.qkv[0][0].shape[1]

    def norms(mixed: Any) -> Any:
        split = mixed.astype(jnp.float32).reshape(*mixed.shape[:2], heads, -1)
        return jnp.linalg.norm(split, axis=-1)

    return {
        "width": sum(total(size(hidden)) for hidden in outputs.hidden) / len(outputs.hidden),
        "heads": jnp.stack([total(norms(mixed)) for mixed in outputs.context]),
        "feed_forward": jnp.stack([total(jnp.abs(inner)) for inner in outputs.ffn_activations]),
    }


def choose(config: families.Config, narrow: families.Config, found: Importance) -> Kept:
    """The most important ones; each block chooses its own heads and channels."""
    each = _queries_per_group(config)
    groups = found.heads.reshape(len(found.heads), -1, each).sum(-1)
    return Kept(
        _largest(found.width, narrow.width),
        [_spread(_largest(of, narrow.heads // each), each) for of in groups],
        [_largest(of, narrow.feed_forward) for of in found.feed_forward],
    )


def prune_width(config: families.Config, params: Params, kept: Kept) -> Params:
    """The parameters of what is kept: slices of the arrays, nothing is computed."""
    each = _queries_per_group(config)
    size = getattr(config, "head_width", 0) or config.width // config.heads

    def cut(name: str, leaf: Any) -> Any:
        block = re.match(r"blocks/(\d+)/", name)
        rows: dict[str | None, Any] = {"width": kept.width}
        if block:
            heads = kept.heads[int(block[1])]
            rows["heads"] = _spread(heads, size)
            rows["groups"] = _spread(np.unique(heads // each), size)
            rows["feed_forward"] = kept.feed_forward[int(block[1])]
        for axis, label in enumerate(_axes(name)):
            leaf = leaf if label is None else jnp.take(leaf, rows[label], axis=axis)
        return leaf

    return map_named(cut, params)


def _axes(name: str) -> tuple[str | None, ...]:
    short = re.sub(r"^blocks/\d+/", "", name)
    for pattern, axes in _RULES:
        if re.fullmatch(pattern, short):
            return axes
    raise ValueError(f"width pruning does not know what the axes of {name!r} are.")


def _queries_per_group(config: families.Config) -> int:
    return config.heads // (getattr(config, "kv_heads", 0) or config.heads)


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """CachePositions of the `count` largest, ascending; among equals the first."""
    return np.sort(np.argsort(-np.asarray(values), kind="stable")[:count])


def _spread(places: np.ndarray, size: int) -> np.ndarray:
    """[2, 0] of size 3 -> [6, 7, 8, 0, 1, 2]."""
    return (np.asarray(places)[:, None] * size + np.arange(size)).ravel()
