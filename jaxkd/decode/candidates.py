"""The most probable next tokens of several beams, without sorting the vocabulary."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

NEVER = -1e9  # added to the log-probability of what must not be; finite, so that sums stay so
WIDTH = 128  # tokens of which only the best is looked at first
SMALL = 2048  # vocabularies below are searched at once


def candidates(
    logits: Float[Array, "B K V"],
    running: Float[Array, "B K"],
    count: int,
    barred: Float[Array, " V"] | None = None,
) -> tuple[Float[Array, "B N"], Int[Array, "B N"], Int[Array, "B N"]]:
    """The `count` best continuations of K beams by log-probability, best first.

    Args:
      running: log-probability of each beam so far.
      barred: added to each token's log-probability, which is not normalised again.
    Returns: log-probabilities with the new token, the beam each goes on from, and the token.
    """
    rows, beams, vocabulary = logits.shape
    # Vocabulary first, as logits are made (core/outputs.py).
    by_token = jnp.moveaxis(logits, -1, 0).reshape(vocabulary, -1)
    normaliser = jax.nn.logsumexp(by_token, axis=0).reshape(rows, beams, 1)
    if barred is not None:
        by_token = by_token + barred[:, None]
    values, tokens = (x.reshape(rows, beams, -1) for x in top(by_token, min(count, vocabulary)))
    total = (values - normaliser + running[..., None]).reshape(rows, -1)
    best, where = jax.lax.top_k(total, count)
    token = jnp.take_along_axis(tokens.reshape(rows, -1), where, axis=1)
    return best, where // tokens.shape[2], token


def top(values: Float[Array, "V R"], count: int) -> tuple[Float[Array, "R N"], Int[Array, "R N"]]:
    """The `count` largest values of each column and where they are, largest first.

    In two stages: the largest are in the blocks whose largest are largest, so that few numbers are
    sorted. Equal values may come in any order.

    >>> top(jnp.array([[1.0, 5.0], [3.0, 4.0], [2.0, 6.0]]), 2)[1].tolist()
    [[1, 2], [2, 0]]
    """
    size, columns = values.shape
    blocks = -(-size // WIDTH)
    if size < SMALL or blocks <= count:
        return tuple(jax.lax.top_k(values.T, count))
    padded = jnp.pad(values, ((0, blocks * WIDTH - size), (0, 0)), constant_values=-jnp.inf)
    cut = padded.reshape(blocks, WIDTH, columns)
    _, block = jax.lax.top_k(cut.max(axis=1).T, count)  # [R, N]
    found = jnp.take_along_axis(cut, block.T[:, None, :], axis=0)  # [N, WIDTH, R]
    best, where = jax.lax.top_k(found.reshape(count * WIDTH, columns).T, count)
    first = jnp.take_along_axis(block, where // WIDTH, axis=1) * WIDTH
    return best, first + where % WIDTH
