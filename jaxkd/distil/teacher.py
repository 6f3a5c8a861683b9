"""What a teacher says of a batch: by a forward pass, or out of a store; and how its weights lie."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxkd.core.batch import Batch
from jaxkd.core.names import did_you_mean
from jaxkd.core.outputs import Outputs
from jaxkd.core.stored_targets import Scores, States
from jaxkd.core.tree import map_named
from jaxkd.models.model import Model, Params, forward, predict

TEACHER_DTYPES = ("float32", "bfloat16", "int8")
# Weights of which each output channel, or each token, gets a scale of its own: the axis the scale
# is taken over. What has another name (biases, norms) stays float32.
_KERNELS = ("kernel", "gate", "expand", "contract")  # [..., in, out]
_ROWS = ("token", "position", "segment", "output")  # [row, width]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8:
    """An array as whole numbers from -127 to 127 times a scale of each channel."""

    values: Any  # int8
    scale: Any  # float32, 1 along the axes it covers


def quantise(params: Params, how: str) -> Params:
    """A teacher's weights in less memory; `dequantise` gives back what they stand for.

    bfloat16 rounds every array. int8 is weight-only and symmetric: matrices get a scale for each
    output channel, embeddings one for each row; biases and norms stay as they are.

    Raises:
      ValueError: unless `how` is one of TEACHER_DTYPES.
    """
    if how not in TEACHER_DTYPES:
        raise ValueError(f"a teacher is held in {how!r}. {did_you_mean(how, TEACHER_DTYPES)}")
    if how == "float32":
        return params
    if how == "bfloat16":
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    return jax.jit(lambda params: map_named(_as_int8, params))(params)


def _as_int8(name: str, leaf: Any) -> Any:
    last = name.rsplit("/", 1)[-1]
    if leaf.ndim < 2 or last not in _KERNELS + _ROWS:
        return leaf
    axis = -2 if last in _KERNELS else -1
    scale = jnp.max(jnp.abs(leaf), axis=axis, keepdims=True) / 127
    scale = jnp.where(scale > 0, scale, 1.0)
    return Int8(jnp.round(leaf / scale).astype(jnp.int8), scale)


def dequantise(params: Params) -> Params:
    """The float32 arrays that held ones stand for; to be called where they are used, in a jit."""

    def release(leaf: Any) -> Any:
        if isinstance(leaf, Int8):
            return leaf.values.astype(jnp.float32) * leaf.scale
        return leaf.astype(jnp.float32)

    return jax.tree.map(release, params, is_leaf=lambda x: isinstance(x, Int8))


def megabytes(params: Params) -> float:
    """What the arrays take, 10^6 bytes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(params)) / 1e6


def said(teacher: Model | None, params: Params | None, batch: Batch) -> Outputs | None:
    """The teacher's outputs, without gradient; None if there is neither teacher nor store.

    Stored targets (`batch.stored_targets`) replace the forward pass: last hidden states go
    through the teacher's own head, for which `params` needs its head and token embedding only.
    """
    taught = batch.stored_targets
    if taught is None:
        outputs = None if teacher is None else forward(teacher, dequantise(params), batch)
    elif isinstance(taught, States):
        hidden = taught.hidden.astype(teacher.head.config.dtype)
        there = dataclasses.replace(batch, target_positions=None)  # where they were taken
        logits, projection = predict(teacher, dequantise(params), there, hidden)
        outputs = Outputs(logits, (hidden,), projection=projection)
    elif isinstance(taught, Scores):
        outputs = Outputs(taught.logits, ())
    else:
        outputs = Outputs(None, (), sparse=taught)
    return jax.lax.stop_gradient(outputs)
