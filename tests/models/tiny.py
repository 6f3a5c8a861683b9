"""Small models and batches that tests of several rooms share."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.core.batch import Batch
from jaxkd.core.tree import map_named
from jaxkd.models import bert, families


def config(**changes) -> bert.Config:
    settings = dict(
        vocabulary=61, layers=2, width=32, heads=4, feed_forward=48, max_length=24,
        dropout=0.0, attention_dropout=0.0, init_std=0.2,
    )  # fmt: skip
    return bert.Config(**(settings | changes))


def batch(rows: int = 8, length: int = 12, targets: int = 4, seed: int = 0, vocabulary: int = 61):
    """Ragged rows with an uneven number of targets, some rows with none."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, length + 1, rows)
    lengths[0] = length
    counted = rng.integers(0, targets + 1, rows)
    counted[0] = targets
    positions = np.stack([rng.permutation(length)[:targets] for _ in range(rows)])
    return Batch(
        tokens=jnp.array(rng.integers(1, vocabulary, (rows, length)), jnp.int32),
        mask=jnp.array(np.arange(length) < lengths[:, None]),
        targets=jnp.array(rng.integers(1, vocabulary, (rows, targets)), jnp.int32),
        target_positions=jnp.array(positions, jnp.int32),
        target_mask=jnp.array(np.arange(targets) < counted[:, None]),
    )


def random_params(config, seed: int = 0):
    """Every parameter random, biases and norms too, so that swapping any two shows."""
    rng = np.random.default_rng(seed)

    def draw(name, leaf):
        values = 0.2 * rng.normal(size=leaf.shape) + (1.0 if name.endswith("scale") else 0.0)
        return jnp.asarray(values, jnp.float32)

    return map_named(draw, jax.eval_shape(lambda: families.build(config).init(0)))


def encoder(family: str, head: str):
    """Of every encoder's kind; ALBERT's embedding has another width than its block."""
    narrow = {"embedding_width": 10} if family == "albert" else {}
    kind = families.FAMILIES[family][0]
    return kind(
        vocabulary=37, layers=2, width=24, heads=3, feed_forward=40, max_length=14, head=head,
        labels=("a", "b", "c"), **narrow,
    )  # fmt: skip
