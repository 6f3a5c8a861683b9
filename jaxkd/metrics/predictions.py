"""What a model predicted right, and how close a student is to its teacher; unreduced values."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxkd.core.batch import BLANK


def first_choice(logits: Float[Array, "*B V"]) -> Int[Array, "*B"]:
    """The likeliest token of each position; the lowest id among equals, as argmax chooses.

    Two plain reductions over the vocabulary's axis in front, which XLA's CPU backend vectorises;
    argmax it does not. Seen with jax 0.10.2 on 2 cores of a 2.5 GHz Xeon, 640 positions of width
    128, 30,522 entries, head and cross-entropy and choice, least of 5: 69 ms against 165 ms.

    >>> first_choice(jnp.array([[0.0, 3.0, 3.0], [1.0, 0.0, -jnp.inf]]))
    Array([1, 0], dtype=int32)
    """
    scores = jnp.moveaxis(logits, -1, 0)
    ids = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    return jnp.min(jnp.where(scores == jnp.max(scores, axis=0), ids, len(scores) - 1), axis=0)


def accuracy(
    logits: Float[Array, "*B V"], labels: Int[Array, "*B"], *, top: int = 1
) -> Float[Array, "*B"]:
    """1 where the label is among the `top` likeliest, else 0; a tie goes to the lower id.

    >>> accuracy(jnp.array([[0.0, 3.0, 2.0]] * 2), jnp.array([2, 0]), top=2)
    Array([1., 0.], dtype=float32)
    """
    if top == 1:
        return (first_choice(logits) == labels).astype(jnp.float32)
    scores = jnp.moveaxis(logits, -1, 0)
    ids = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    label_score = jnp.take_along_axis(scores, labels[None], axis=0)
    before = (scores > label_score) | ((scores == label_score) & (ids < labels))
    # Nothing compares larger than nan, so that every label would count as right.
    return ((jnp.sum(before, axis=0) < top) & ~jnp.isnan(label_score[0])).astype(jnp.float32)


def agreement(student: Float[Array, "*B V"], teacher: Float[Array, "*B V"]) -> Float[Array, "*B"]:
    """1 where student and teacher prefer the same token, else 0."""
    return (first_choice(student) == first_choice(teacher)).astype(jnp.float32)


def spelt_right(
    logits: Float[Array, "B L V"],
    mask: Bool[Array, "B L"],
    labels: Int[Array, "B L"],
    label_mask: Bool[Array, "B L"],
) -> Float[Array, " B"]:
    """1 where the likeliest path of a row spells its labels (CTC), else 0.

    >>> logits = jax.nn.one_hot(jnp.array([[5, 5, 0, 5]]), 6)
    >>> labels = jnp.array([[5, 5, 0, 0]])
    >>> spelt_right(logits, jnp.ones((1, 4), bool), labels, labels > 0)
    Array([1.], dtype=float32)
    """
    path = jnp.where(mask, first_choice(logits), BLANK)
    before = jnp.pad(path[:, :-1], ((0, 0), (1, 0)), constant_values=BLANK)
    emitted = (path != before) & (path != BLANK)
    # A position past the end is dropped by the scatter.
    position = jnp.where(emitted, jnp.cumsum(emitted, axis=1) - 1, path.shape[1])
    rows = jnp.arange(len(path))[:, None]
    spelling = jnp.full_like(path, BLANK).at[rows, position].set(path, mode="drop")
    return jnp.all(spelling == jnp.where(label_mask, labels, BLANK), axis=1).astype(jnp.float32)
