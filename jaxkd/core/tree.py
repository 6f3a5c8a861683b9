"""Trees of arrays by name: 'blocks/0/attention/query/kernel' in both directions."""

from typing import Any

import jax
import numpy as np


def named(tree: Any) -> dict[str, Any]:
    """Leaves of nested dicts and lists, by their path.

    >>> named({"embed": {"token": 1}, "blocks": [{"bias": 2}]})
    {'blocks/0/bias': 2, 'embed/token': 1}
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def map_named(function: Any, tree: Any) -> Any:
    """Like `jax.tree.map`, with `function(name, leaf)`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(jax.tree_util.keystr(path, simple=True, separator="/"), leaf),
        tree,
    )


def is_stacked(name: str) -> bool:
    """Whether a parameter of that name has a row for each block (models/stack.py).

    >>> is_stacked("blocks/attention/query/kernel"), is_stacked("blocks/0/attention/query/kernel")
    (True, False)
    """
    parts = name.split("/")
    return "blocks" in parts and not parts[parts.index("blocks") + 1].isdigit()


def parameter_count(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def filled(shapes: Any) -> Any:
    """Arrays of these shapes, to time or measure what does not depend on the numbers.

    >>> filled([jax.ShapeDtypeStruct((2,), np.float32)])
    [array([0.01, 0.01], dtype=float32)]
    """
    return jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, leaf.dtype), shapes)
