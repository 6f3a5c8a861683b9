"""On-policy distillation (GKD): the student samples targets, and learns the teacher's
distribution over them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxkd.core.batch import Batch
from jaxkd.core.random import stream
from jaxkd.core.ranges import check as check_ranges
from jaxkd.core.ranges import field
from jaxkd.decode.sample import Sample, sampler
from jaxkd.models.config import Config
from jaxkd.models.model import Model, Params

Mix = Callable[[Params, Batch, Any, str | None], tuple[Batch, Any]]


@dataclasses.dataclass
class OnPolicy:
    """How often a batch's targets are the student's samples, and how they are sampled.

    The choice is made for a whole batch, so that only those batches pay for the sampling.
    Source: Agarwal et al. (2023), arXiv:2306.13649 (GKD), algorithm 1; there the share is lambda.
    """

    share: float = field(0.0, at_least=0, at_most=1)  # probability that a batch is sampled
    temperature: float = field(1.0, at_least=0)  # of the student's distribution; 0: greedy
    top_k: int = field(0, at_least=0)  # sample among the k likeliest tokens; 0: all
    top_p: float = field(1.0, above=0, at_most=1)  # among the fewest with this probability together

    def check(self) -> None:
        check_ranges(self, "on_policy")
        self._sample(1).check()

    def _sample(self, max_tokens: int) -> Sample:
        return Sample(
            max_tokens=max_tokens, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p
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
    """A function mix(params, batch, step, axis) -> (batch, 1.0 if it was sampled, else 0.0).

    Whether a batch is sampled depends on seed and step alone, so that all devices and hosts agree;
    the samples of a row depend on its number in the whole batch too, not on the number of devices.
    Sampled targets have the width of the batch's targets, and may be cut off there.

    Args:
      end: the token that ends a target.
      suppress_tokens: tokens that are never sampled.
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
        sampled = jax.random.uniform(stream(seed, "on policy", step)) < how.share
        first = 0 if axis is None else jax.lax.axis_index(axis) * batch.rows
        key = stream(seed, "own words", step)
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(first + jnp.arange(batch.rows))

        def with_samples(batch: Batch) -> Batch:
            decoded = draw(params, sources(batch), keys)
            tokens, length = decoded.tokens[:, 0], decoded.lengths[:, 0]
            mask = jnp.arange(tokens.shape[1]) < length[:, None]
            return with_targets(batch, jnp.where(mask, tokens, pad), mask, pad)

        batch = jax.lax.cond(sampled, with_samples, lambda batch: batch, batch)
        return batch, sampled.astype(jnp.float32)

    return mix


def sources(batch: Batch) -> Batch:
    """The sources of a batch of pairs, without its targets."""
    if batch.target_positions is None:
        return Batch(batch.tokens, batch.mask)
    read = batch.target_positions[:, :1] + 1
    width = batch.tokens.shape[1] - batch.targets.shape[1]
    mask = jnp.arange(width) < read
    return Batch(jnp.where(mask, batch.tokens[:, :width], 0), mask)


def with_targets(batch: Batch, targets: Any, mask: Any, pad: int) -> Batch:
    """The same sources with other targets [B, K], of an encoder-decoder or of a decoder."""
    targets = targets.astype(batch.targets.dtype)
    new = dict(targets=targets, target_mask=mask)
    if batch.target_positions is None:
        shifted = jnp.concatenate([batch.decoder_tokens[:, :1], targets[:, :-1]], axis=1)
        return dataclasses.replace(batch, **new, decoder_tokens=shifted, decoder_mask=mask)
    positions = batch.target_positions + 1
    rows = jnp.arange(batch.rows)[:, None]
    tokens = batch.tokens.at[rows, positions].set(targets)
    until = positions[:, :1] + mask.sum(1, keepdims=True)
    return dataclasses.replace(
        batch, **new, tokens=tokens, mask=jnp.arange(tokens.shape[1]) < until
    )
