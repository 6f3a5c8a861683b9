"""A family's parameter names and HuggingFace's tensor names: one table, read both ways."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.core.names import matches
from jaxkd.core.tree import named
from jaxkd.models.model import Params
from jaxkd.runtime.allocator import release

_ENDINGS = {"kernel": "weight", "scale": "weight", "bias": "bias"}  # of leaves


@dataclasses.dataclass(frozen=True)
class TensorName:
    """The tensor of a HuggingFace checkpoint that one of our parameters is, or is a part of."""

    name: str  # with "{j}" in it: one tensor for each index of the parameter's first axis
    axis: int  # of the tensor, along which its outputs lie and joined modules are concatenated
    transposed: bool = False
    part: int = 0  # index among the joined modules
    parts: int = 1  # number of joined modules


@dataclasses.dataclass(frozen=True)
class Table:
    """Names of one model's parameters (ours) and of the tensors in a HuggingFace file.

    `modules` pairs module paths of ours with module names there, `{i}` being a block's number.
    Leaves follow one rule: our `kernel` is `weight` transposed, `scale` and a bare array are
    `weight`, `bias` is `bias`. `arrays` pairs single tensors that break the rule. Several modules
    of ours with one name there are parts of one tensor, in this order; a bare array whose name has
    `{j}` is a stack of matrices, each transposed.
    """

    modules: Mapping[str, str]
    arrays: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: Sequence[str] = ()  # patterns of tensors that are no parameter of ours, on purpose
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)  # old ending -> new
    untransposed: Sequence[str] = ()  # patterns of our modules whose kernels are stored as ours

    def tensor(self, name: str) -> TensorName:
        """The tensor of our parameter `name`, such as "blocks/0/attention/query/kernel".

        Raises:
          ValueError: if the table has no such parameter.
        """
        parameter, number = name, ""
        in_list = re.match(r"((?:encoder/)?blocks)/(\d+)/(.*)", name)
        if in_list:
            number, name = in_list[2], f"{in_list[1]}/{{i}}/{in_list[3]}"
        if name in self.arrays:
            return TensorName(self.arrays[name].replace("{i}", number), 0)
        if name in self.modules:
            stored = self.modules[name].replace("{i}", number)
            return TensorName(f"{stored}.weight", 0, transposed="{j}" in stored)
        module, _, leaf = name.rpartition("/")
        if module not in self.modules or leaf not in _ENDINGS:
            raise ValueError(
                f"the parameter {parameter!r} has no tensor name in this family's table. Add its "
                f"module to the family's file in jaxkd/hub/ (leaves are {', '.join(_ENDINGS)})."
            )
        stored = self.modules[module]
        joined = [path for path, other in self.modules.items() if other == stored]
        untransposed = matches(module, self.untransposed)
        return TensorName(
            f"{stored.replace('{i}', number)}.{_ENDINGS[leaf]}",
            axis=1 if leaf == "kernel" and untransposed else 0,
            transposed=leaf == "kernel" and not untransposed,
            part=joined.index(module),
            parts=len(joined),
        )

    def export(self, params: Params) -> dict[str, np.ndarray]:
        """The tensors of a HuggingFace file, by name, from our parameters."""
        tensors: dict[str, np.ndarray] = {}
        joined: dict[str, dict[int, np.ndarray]] = {}
        for name, leaf in named(params).items():
            tensor, array = self.tensor(name), np.asarray(leaf)
            array = array.swapaxes(-1, -2) if tensor.transposed else array
            if "{j}" in tensor.name:
                for j, matrix in enumerate(array):
                    tensors[tensor.name.replace("{j}", str(j))] = np.ascontiguousarray(matrix)
            elif tensor.parts > 1:
                joined.setdefault(tensor.name, {})[tensor.part] = array
                if len(joined[tensor.name]) == tensor.parts:
                    parts = [joined[tensor.name][i] for i in range(tensor.parts)]
                    # concatenate keeps the order of transposed parts; files have rows in order
                    whole = np.concatenate(parts, tensor.axis)
                    tensors[tensor.name] = np.ascontiguousarray(whole)
            else:
                tensors[tensor.name] = np.ascontiguousarray(array)
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
        new_parameters: Callable[[Sequence[str]], Any] = lambda names: None,
    ) -> Params:
        """Our parameters from a file's tensors, which are read one at a time.

        Args:
          shapes: the parameters' tree of shapes.
          fresh: our parameters by name, for those that have no tensor or one of another shape.
          dtype: of the parameters; each is cast while it is copied.
          sharding: where the parameter of a name goes; None: the default device.
          on_host: return numpy arrays and use no device.
          new_parameters: called with the names of the `fresh` parameters that were taken.
        Raises:
          ValueError: if a tensor is no parameter, a parameter has no tensor, or a shape differs;
            names them.
        """
        fresh = fresh or {}
        current = {self._current(name): name for name in tensors}
        params, wrong, missing, drawn, used = {}, [], [], [], set()

        def read(tensor: TensorName, shape: Sequence[int]) -> np.ndarray | None:
            """The tensor in our layout; None if the file does not have it."""
            if "{j}" in tensor.name:
                names = [tensor.name.replace("{j}", str(j)) for j in range(shape[0])]
                used.update(names)
                if not current.keys() >= set(names):
                    return None
                # One at a time into an array of the whole: a stack would need all of them twice.
                whole = np.empty(shape, dtype)
                for j, name in enumerate(names):
                    whole[j] = tensors[current[name]].T
                return whole
            used.add(tensor.name)
            if tensor.name not in current:
                return None
            array = tensors[current[tensor.name]]
            if tensor.parts > 1 and array.shape[tensor.axis] % tensor.parts == 0:
                array = np.split(array, tensor.parts, tensor.axis)[tensor.part]
            return array.T if tensor.transposed else array

        for name, needed in named(shapes).items():
            tensor = self.tensor(name)
            array = read(tensor, needed.shape)
            if name in fresh and (array is None or array.shape != needed.shape):
                value = fresh[name].astype(dtype)
                params[name] = np.array(value) if on_host else jax.device_put(value, sharding(name))
                drawn.append(name)
            elif array is None:
                missing.append(f"{name} ({tensor.name})")
            elif array.shape != needed.shape:
                wrong.append(f"{tensor.name}: found {array.shape}, needed {needed.shape}")
            else:
                # Copied, for the tensor is a view of a file; waited for, so that no more than one
                # tensor is in memory besides the parameters.
                if on_host:
                    params[name] = np.array(array, dtype, order="C")
                else:
                    array = array.astype(dtype, copy=False)
                    # device_put may keep the file's own memory, so its result is copied again.
                    value = jax.device_put(array, sharding(name))
                    params[name] = jax.block_until_ready(jnp.copy(value))
            del array
            if needed.size > 2**18:  # else holes between the copies add up to several tensors
                release()
        if drawn:
            new_parameters(drawn)
        extra = [name for name in sorted(current.keys() - used) if not self._ignores(name)]
        if extra or missing:
            raise ValueError(
                f"{family}: {len(extra)} tensors of {origin} are no parameter of the model"
                f"{_some(extra)}; {len(missing)} parameters have no tensor{_some(missing)}. Check "
                "that config.json belongs to these weights; the names are in "
                f"jaxkd/hub/{family}.py."
            )
        if wrong:
            raise ValueError(f"{family}: {origin} does not fit its config.json{_some(wrong)}.")
        return jax.tree.unflatten(
            jax.tree.structure(shapes), [params[name] for name in named(shapes)]
        )

    def has(self, name: str) -> bool:
        """Whether a tensor beside the body is one of this head, or is ignored on purpose."""
        modules = [module for path, module in self.modules.items() if path.startswith("head/")]
        own = any(name.startswith(f"{module}.") for module in modules)
        return own or name in self.arrays.values() or self._ignores(name)

    def _ignores(self, name: str) -> bool:
        return matches(name, self.ignored)

    def _current(self, name: str) -> str:
        for old, new in self.renamed.items():
            if name.endswith(old):
                return name.removesuffix(old) + new
        return name


def _some(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f": {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
