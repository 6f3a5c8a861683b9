"""Label names of a classifier that is loaded for data with names of its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxkd.models.model import Params
from jaxkd.models.parts import exit_blocks


def unnamed(labels: Sequence[str]) -> bool:
    """Whether the classes have no names but transformers' own: LABEL_0, LABEL_1 .., in order."""
    return all(label == f"LABEL_{i}" for i, label in enumerate(labels))


def class_order(stored: Sequence[str], labels: Sequence[str]) -> list[int] | None:
    """For each of `labels` the number of that class in `stored`; None if the names differ.

    Names are compared without regard to case.

    >>> class_order(("positive", "negative"), ("Negative", "Positive"))
    [1, 0]
    """
    if tuple(stored) == tuple(labels):
        return list(range(len(labels)))
    numbers = {label.casefold(): number for number, label in enumerate(stored)}
    needed = [label.casefold() for label in labels]
    if len(numbers) != len(stored) or sorted(numbers) != sorted(needed):
        return None
    return [numbers[label] for label in needed]


def match_labels(
    name: str, stored: Sequence[str], labels: Sequence[str], warn: Callable[[str], Any]
) -> list[int]:
    """For each of `labels` the class of the checkpoint; [] if the names are not the same.

    Names are compared without case. Classes without names (LABEL_0 ..) stay in their order.
    `warn` is called for all but equal names in equal order.

    >>> match_labels("m", ("positive", "negative"), ("Negative", "Positive"), lambda message: None)
    [1, 0]
    """
    order, same = class_order(stored, labels), list(range(len(labels)))
    if order == same:
        return same
    if order:
        warn(f"{name}: its classes {list(stored)} are reordered to {list(labels)}")
        return order
    if unnamed(stored) or unnamed(labels):
        warn(
            f"{name}: its classes are {list(stored)}, taken in this order for {list(labels)}; "
            "check that they mean the same"
        )
        return same
    warn(f"{name}: its classes are {list(stored)}, not {list(labels)}: a new classifier is drawn")
    return []


def reorder_classes(
    params: Params, order: Sequence[int], fresh: Mapping[str, Any] | None
) -> Params:
    """The classifiers' classes in another order, or drawn anew if `fresh` is given.

    These are the head's and those of early exits.
    """
    parts = {}
    for part in ("head", *exit_blocks(params)):
        classify = params[part]["classify"]
        if fresh is None:
            changed = {leaf: array[..., np.array(order)] for leaf, array in classify.items()}
        else:
            changed = {
                leaf: (np.asarray if isinstance(array, np.ndarray) else jnp.asarray)(
                    fresh[f"{part}/classify/{leaf}"], array.dtype
                )
                for leaf, array in classify.items()
            }
        parts[part] = {**params[part], "classify": changed}
    return params | parts
