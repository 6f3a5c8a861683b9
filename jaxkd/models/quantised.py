"""Weights of a model that only predicts, in less memory: bfloat16, or int8 with scales."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxkd.core.names import did_you_mean
from jaxkd.core.tree import map_named
from jaxkd.models import axes
from jaxkd.models.parts import Params

TEACHER_DTYPES = ("float32", "bfloat16", "int8")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8:
    """An array as integers from -127 to 127 times a scale of each channel."""

    values: Any  # int8
    scale: Any  # float32, 1 along the axes it covers


def quantise(params: Params, dtype: str) -> Params:
    """The weights in less memory; `dequantise` gives back float32 arrays.

    bfloat16 rounds every array. int8 is weight-only and symmetric: matrices get a scale for each
    output channel, embeddings one for each row; biases, norms and an LSTM's recurrent matrices
    stay float32.

    Raises:
      ValueError: unless `dtype` is one of TEACHER_DTYPES; for int8, if a parameter has no row in
        models/axes.py.
    """
    if dtype not in TEACHER_DTYPES:
        raise ValueError(f"teacher_dtype={dtype!r}. {did_you_mean(dtype, TEACHER_DTYPES)}")
    if dtype == "float32":
        return params
    if dtype == "bfloat16":
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    return jax.jit(lambda params: map_named(_as_int8, params))(params)


def _as_int8(name: str, leaf: Any) -> Any:
    letters = axes.axes(name, leaf.ndim)
    if not axes.is_matrix(letters) or axes.is_recurrent(letters):
        return leaf
    axis = -1 if axes.has_rows(letters) else -2
    scale = jnp.max(jnp.abs(leaf), axis=axis, keepdims=True) / 127
    scale = jnp.where(scale > 0, scale, 1.0)
    return Int8(jnp.round(leaf / scale).astype(jnp.int8), scale)


def round_kernels(params: Params, dtype: Any) -> Params:
    """The kernels of dense layers in `dtype`, that of the products which they are rounded for.

    The model computes the same bits (models/dense.py rounds them in every call), from half the
    memory, and without rounding them again in each step. For weights that only predict.
    """

    def rounded(name: str, leaf: Any) -> Any:
        whole = getattr(leaf, "dtype", None) == jnp.float32 and name.endswith("/kernel")
        return leaf.astype(dtype) if whole else leaf

    return map_named(rounded, params)


def dequantise(params: Params) -> Params:
    """The float32 arrays of quantised ones; to be called where they are used, in a jit."""

    def full(leaf: Any) -> Any:
        if isinstance(leaf, Int8):
            return leaf.values.astype(jnp.float32) * leaf.scale
        return leaf.astype(jnp.float32)

    return jax.tree.map(full, params, is_leaf=lambda x: isinstance(x, Int8))


def megabytes(params: Params) -> float:
    """Size of the arrays, in 10^6 bytes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(params)) / 1e6
