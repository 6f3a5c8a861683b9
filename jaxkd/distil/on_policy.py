"""On-policy distillation: a student is told what its teacher thinks of the student's own words."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxkd.core.batch import Batch
from jaxkd.core.random import stream
from jaxkd.decode.sample import Sample, sampler
from jaxkd.models.config import Config
from jaxkd.models.model import Model, Params

Mix = Callable[[Params, Batch, Any, str | None], tuple[Batch, Any]]


@dataclasses.dataclass
class OnPolicy:
    """How often a batch's targets are the student's own, and how it writes them.

    A coin is thrown for each batch, so that only those pay for the writing.
    Source: Agarwal et al. (2023), arXiv:2306.13649 (GKD), algorithm 1; there the share is lambda.
    """

    share: float = 0.0  # of the batches, in the mean; 0: none, 1: all
    temperature: float = 1.0  # of the student as it writes
    top_k: int = 0  # it draws among so many of the likeliest; 0: all
    top_p: float = 1.0  # it draws among the fewest that have this share together

    def check(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"on_policy.share is {self.share}; a share is between 0 and 1.")
        self._sample(1).check()

    def _sample(self, room: int) -> Sample:
        return Sample(
            max_tokens=room, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p
        )


def mixer(
    model: Model,
    config: Config,
    how: OnPolicy,
    *,
    seed: int,
    end: int,
    pad: int,
    suppress_tokens: tuple[int, ...] = (),
) -> Mix:
    """What to do to a batch before a step: mix(params, batch, step, axis) -> batch, share of it.

    The coin hangs on seed and step alone, so that all devices and hosts agree; what a row draws
    hangs on its number in the whole batch too, and not on how many devices there are. Own targets
    have the room of the batch's targets, and may not have ended in it.

    Args:
      end: the token that ends a target.
      suppress_tokens: tokens that are never written.
    """

    def mix(params: Params, batch: Batch, step: Any, axis: str | None = None) -> tuple[Batch, Any]:
        draw = sampler(
            model,
            config,
            how._sample(batch.targets.shape[1]),
            eos_ids=[end],
            pad=pad,
            suppress_tokens=suppress_tokens,
        )
        mine = jax.random.uniform(stream(seed, "on policy", step)) < how.share
        first = 0 if axis is None else jax.lax.axis_index(axis) * batch.rows
        key = stream(seed, "own words", step)
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(first + jnp.arange(batch.rows))

        def own(batch: Batch) -> Batch:
            made = draw(params, sources(batch), keys)
            tokens, length = made.tokens[:, 0], made.lengths[:, 0]
            there = jnp.arange(tokens.shape[1]) < length[:, None]
            return with_targets(batch, jnp.where(there, tokens, pad), there, pad)

        batch = jax.lax.cond(mine, own, lambda batch: batch, batch)
        return batch, mine.astype(jnp.float32)

    return mix


def sources(batch: Batch) -> Batch:
    """What a batch of pairs gives to be read, alone."""
    if batch.target_positions is None:
        return Batch(batch.tokens, batch.mask)
    read = batch.target_positions[:, :1] + 1
    width = batch.tokens.shape[1] - batch.targets.shape[1]
    shown = jnp.arange(width) < read
    return Batch(jnp.where(shown, batch.tokens[:, :width], 0), shown)


def with_targets(batch: Batch, targets: Any, mask: Any, pad: int) -> Batch:
    """The same sources with other targets [B, K], of an encoder-decoder or of a decoder."""
    targets = targets.astype(batch.targets.dtype)
    new = dict(targets=targets, target_mask=mask)
    if batch.target_positions is None:
        said = jnp.concatenate([batch.decoder_tokens[:, :1], targets[:, :-1]], axis=1)
        return dataclasses.replace(batch, **new, decoder_tokens=said, decoder_mask=mask)
    places = batch.target_positions + 1
    rows = jnp.arange(batch.rows)[:, None]
    tokens = batch.tokens.at[rows, places].set(targets)
    until = places[:, :1] + mask.sum(1, keepdims=True)
    return dataclasses.replace(
        batch, **new, tokens=tokens, mask=jnp.arange(tokens.shape[1]) < until
    )
