"""How a family's tensors are called elsewhere: one table, read in both directions."""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from jaxkd.core.tree import named, nest
from jaxkd.models.model import Params


@dataclasses.dataclass(frozen=True)
class Table:
    """The names of one model.

    `modules` pairs our module paths with theirs, `{i}` standing for a block's number. Leaves
    follow one rule: our `kernel` is their `weight` transposed, `scale` and a bare array are their
    `weight`, `bias` is `bias`. `arrays` pairs single tensors that break the rule.
    """

    modules: Mapping[str, str]
    arrays: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: Sequence[str] = ()  # patterns of theirs that have no place here on purpose
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)  # old endings of theirs

    def theirs(self, name: str) -> tuple[str, bool]:
        """Their name of our parameter, and whether it is transposed.

        Raises:
          KeyError: if the table does not have it.
        """
        level, number = "", ""
        if name.startswith("blocks/"):
            _, number, level = name.split("/", 2)
            name = f"blocks/{{i}}/{level}"
        if name in self.arrays:
            return self.arrays[name].replace("{i}", number), False
        if name in self.modules:
            return f"{self.modules[name].replace('{i}', number)}.weight", False
        module, leaf = name.rsplit("/", 1)
        ending = {"kernel": "weight", "scale": "weight", "bias": "bias"}[leaf]
        return f"{self.modules[module].replace('{i}', number)}.{ending}", leaf == "kernel"

    def export(self, params: Params) -> dict[str, np.ndarray]:
        """Our parameters under their names, in their layout."""
        tensors = {}
        for name, leaf in named(params).items():
            other, transposed = self.theirs(name)
            array = np.asarray(leaf)
            tensors[other] = np.ascontiguousarray(array.T if transposed else array)
        return tensors

    def load(
        self,
        tensors: Mapping[str, np.ndarray],
        shapes: Params,
        *,
        origin: str,
        family: str,
        fresh: Mapping[str, jnp.ndarray] | None = None,
    ) -> Params:
        """Their tensors as our parameters, read one at a time; `shapes` says what is needed.

        Args:
          fresh: our parameters by name, for those that have no source or one of another shape.
        Raises:
          KeyError: if a tensor has no place, or a parameter no source; names both.
          ValueError: if a shape differs.
        """
        fresh = fresh or {}
        current = {self._current(name): name for name in tensors}
        flat, wrong, missing, used = {}, [], [], set()
        for name, needed in named(shapes).items():
            other, transposed = self.theirs(name)
            used.add(other)
            array = tensors[current[other]] if other in current else None
            array = array.T if transposed and array is not None else array
            if name in fresh and (array is None or array.shape != needed.shape):
                flat[name] = fresh[name]
            elif array is None:
                missing.append(f"{name} ({other})")
            elif array.shape != needed.shape:
                wrong.append(f"{other}: found {array.shape}, needed {needed.shape}")
            else:
                flat[name] = jnp.asarray(array, needed.dtype)
        extra = [
            name
            for name in sorted(current.keys() - used)
            if not any(fnmatch.fnmatch(name, pattern) for pattern in self.ignored)
        ]
        if extra or missing:
            raise KeyError(
                f"{family}: {len(extra)} tensors of {origin} have no place{_some(extra)}; "
                f"{len(missing)} of our parameters have no source{_some(missing)}. "
                f"See jaxkd/hub/{family}.py."
            )
        if wrong:
            raise ValueError(f"{family}: {origin} does not fit its config.json{_some(wrong)}.")
        tree = nest(flat)
        blocks = tree["blocks"]
        return {"head": {}} | tree | {"blocks": [blocks[str(i)] for i in range(len(blocks))]}

    def _current(self, name: str) -> str:
        for old, new in self.renamed.items():
            if name.endswith(old):
                return name.removesuffix(old) + new
        return name


def _some(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f": {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
