"""How a family's tensors are called elsewhere: one table, read in both directions."""

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.core.tree import named
from jaxkd.models.model import Params
from jaxkd.runtime.allocator import release


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one of our parameters is kept."""

    name: str  # of their tensor; with "{j}" in it, one tensor for each index of our first axis
    axis: int  # of their tensor along which outputs lie, and joined modules lie side by side
    transposed: bool = False
    part: int = 0  # of those joined
    parts: int = 1


@dataclasses.dataclass(frozen=True)
class Table:
    """The names of one model.

    `modules` pairs our module paths with theirs, `{i}` standing for a block's number. Leaves
    follow one rule: our `kernel` is their `weight` transposed, `scale` and a bare array are their
    `weight`, `bias` is `bias`. `arrays` pairs single tensors that break the rule. Modules of ours
    with one name of theirs are parts of one tensor, in this order; a bare array whose name of
    theirs has `{j}` is a stack of matrices, each transposed.
    """

    modules: Mapping[str, str]
    arrays: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: Sequence[str] = ()  # patterns of theirs that have no place here on purpose
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)  # old endings of theirs
    untransposed: Sequence[str] = ()  # patterns of our modules whose kernels are stored as ours

    def place(self, name: str) -> Place:
        """Where our parameter `name` is kept.

        Raises:
          KeyError: if the table does not have it.
        """
        number = ""
        in_list = re.match(r"((?:encoder/)?blocks)/(\d+)/(.*)", name)
        if in_list:
            number, name = in_list[2], f"{in_list[1]}/{{i}}/{in_list[3]}"
        if name in self.arrays:
            return Place(self.arrays[name].replace("{i}", number), 0)
        if name in self.modules:
            theirs = self.modules[name].replace("{i}", number)
            return Place(f"{theirs}.weight", 0, transposed="{j}" in theirs)
        module, leaf = name.rsplit("/", 1)
        theirs = self.modules[module]
        joined = [ours for ours, other in self.modules.items() if other == theirs]
        as_ours = any(fnmatch.fnmatch(module, pattern) for pattern in self.untransposed)
        ending = {"kernel": "weight", "scale": "weight", "bias": "bias"}[leaf]
        return Place(
            f"{theirs.replace('{i}', number)}.{ending}",
            axis=1 if leaf == "kernel" and as_ours else 0,
            transposed=leaf == "kernel" and not as_ours,
            part=joined.index(module),
            parts=len(joined),
        )

    def export(self, params: Params) -> dict[str, np.ndarray]:
        """Our parameters under their names, in their layout."""
        tensors: dict[str, np.ndarray] = {}
        joined: dict[str, dict[int, np.ndarray]] = {}
        for name, leaf in named(params).items():
            place, array = self.place(name), np.asarray(leaf)
            array = array.swapaxes(-1, -2) if place.transposed else array
            if "{j}" in place.name:
                for j, one in enumerate(array):
                    tensors[place.name.replace("{j}", str(j))] = np.ascontiguousarray(one)
            elif place.parts > 1:
                joined.setdefault(place.name, {})[place.part] = array
                if len(joined[place.name]) == place.parts:
                    parts = [joined[place.name][i] for i in range(place.parts)]
                    tensors[place.name] = np.concatenate(parts, place.axis)
            else:
                tensors[place.name] = np.ascontiguousarray(array)
        return tensors

    def load(
        self,
        tensors: Mapping[str, np.ndarray],
        shapes: Params,
        *,
        origin: str,
        family: str,
        fresh: Mapping[str, jnp.ndarray] | None = None,
        dtype: Any = jnp.float32,
        sharding: Callable[[str], jax.sharding.Sharding | None] = lambda name: None,
        on_host: bool = False,
        warn: Callable[[str], Any] = lambda told: None,
    ) -> Params:
        """Their tensors as our parameters, read one at a time; `shapes` says what is needed.

        Args:
          fresh: our parameters by name, for those that have no source or one of another shape.
          dtype: of the parameters; each is cast while it is copied.
          sharding: where the parameter of a name goes; None: the default device.
          on_host: give numpy arrays instead, and ask no device.
          warn: is told which of `fresh` were taken.
        Raises:
          KeyError: if a tensor has no place, or a parameter no source; names both.
          ValueError: if a shape differs.
        """
        fresh = fresh or {}
        current = {self._current(name): name for name in tensors}
        flat, wrong, missing, drawn, used = {}, [], [], [], set()

        def read(place: Place, needed: jax.ShapeDtypeStruct) -> np.ndarray | None:
            """Their array in our layout; None if it is not there."""
            if "{j}" in place.name:
                each = [place.name.replace("{j}", str(j)) for j in range(needed.shape[0])]
                used.update(each)
                if not current.keys() >= set(each):
                    return None
                # One at a time into an array of the whole: a stack would hold all of them twice.
                whole = np.empty(needed.shape, dtype)
                for j, one in enumerate(each):
                    whole[j] = tensors[current[one]].T
                return whole
            used.add(place.name)
            if place.name not in current:
                return None
            array = tensors[current[place.name]]
            if place.parts > 1:
                array = np.split(array, place.parts, place.axis)[place.part]
            return array.T if place.transposed else array

        for name, needed in named(shapes).items():
            place = self.place(name)
            array = read(place, needed)
            if name in fresh and (array is None or array.shape != needed.shape):
                one = fresh[name].astype(dtype)
                flat[name] = np.array(one) if on_host else jax.device_put(one, sharding(name))
                drawn.append(name)
            elif array is None:
                missing.append(f"{name} ({place.name})")
            elif array.shape != needed.shape:
                wrong.append(f"{place.name}: found {array.shape}, needed {needed.shape}")
            else:
                # Copied, for theirs is a view of a file; waited for, so that no more than one of
                # theirs is held beside ours.
                if on_host:
                    flat[name] = np.array(array, dtype, order="C")
                else:
                    array = array.astype(dtype, copy=False)
                    # device_put may take the file's own memory, so what it gives is copied again.
                    there = jax.device_put(array, sharding(name))
                    flat[name] = jax.block_until_ready(jnp.copy(there))
            del array
            if needed.size > 2**18:  # else holes between the copies add up to several tensors
                release()
        if drawn:
            warn(", ".join(drawn))
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
        return jax.tree.unflatten(
            jax.tree.structure(shapes), [flat[name] for name in named(shapes)]
        )

    def _current(self, name: str) -> str:
        for old, new in self.renamed.items():
            if name.endswith(old):
                return name.removesuffix(old) + new
        return name


def _some(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f": {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
