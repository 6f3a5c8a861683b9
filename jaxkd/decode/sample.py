"""Sampling: continuations drawn from a model, or the likeliest token each time (greedy)."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxkd.core.batch import Batch
from jaxkd.decode.beam import Decoded, prompt_of
from jaxkd.decode.cached import advance, empty
from jaxkd.decode.candidates import NEVER
from jaxkd.models.cache_positions import sequential
from jaxkd.models.config import Config
from jaxkd.models.model import Model, Params, encode


@dataclasses.dataclass
class Sample:
    """How tokens are drawn. top_k is applied before top_p."""

    max_tokens: int = 64  # new ones at most, the end token counted
    min_tokens: int = 0  # tokens before the end token may come
    temperature: float = 1.0  # of the distribution drawn from; 0: always the likeliest (greedy)
    top_k: int = 0  # draw among the k likeliest; 0: all
    top_p: float = 1.0  # draw among the fewest whose probabilities add up to this

    def check(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature={self.temperature}, top_k={self.top_k}, top_p={self.top_p}: the "
                "first two are 0 or more, the third above 0 and at most 1."
            )
        if not 0 <= self.min_tokens <= self.max_tokens or self.max_tokens < 1:
            raise ValueError(
                f"min_tokens is {self.min_tokens} and max_tokens {self.max_tokens}: at least one "
                "token, and no more at least than at most."
            )


def truncated(logits: Float[Array, "B V"], sample: Sample) -> Float[Array, "B V"]:
    """Logits at the sample's temperature; -inf for tokens that are not drawn.

    Of equal logits at a limit all stay.
    Source: Fan, Lewis, Dauphin (2018) for top-k; Holtzman et al. (2020) for top-p.

    >>> truncated(jnp.log(jnp.array([[0.5, 0.3, 0.2]])), Sample(top_p=0.6))[0, 2]
    Array(-inf, dtype=float32)
    """
    logits = logits / sample.temperature
    if sample.top_k and sample.top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, sample.top_k)[0][:, -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if sample.top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        share = jax.nn.softmax(ordered)
        kept = jnp.cumsum(share, axis=-1) - share < sample.top_p  # by those before: one at least
        least = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


def sampler(
    model: Model,
    config: Config,
    sample: Sample,
    *,
    eos_ids: Sequence[int],
    pad: int = 0,
    suppress_tokens: Sequence[int] = (),
) -> Callable[..., Decoded]:
    """Drawing as a pure function of parameters, rows and a key for each row.

    A row's tokens depend on its own key alone, not on other rows.

    Args: as for `beam.searcher`.
    Returns: draw(params, batch, keys, prompt=None, prompt_mask=None) -> Decoded, with one
      continuation a row, its log-probability under the model at temperature 1 without
      truncation, which is its score too. To be jitted or pmapped by the caller, or used in a step.
    Raises:
      ValueError: for impossible settings of `sample`; when called, if a prompt and its
        continuation are longer than the model's positions.
    """
    sample.check()
    eos = jnp.array(tuple(eos_ids), jnp.int32)

    def choose(logits: Array, count: Any, keys: Any) -> tuple[Array, Array]:
        """The next token of each row, and its log-probability."""
        log_probs = jax.nn.log_softmax(logits)
        never = jnp.array(tuple(suppress_tokens), jnp.int32)
        added = jnp.zeros(logits.shape[-1]).at[never].set(NEVER)
        added = added.at[eos].add(jnp.where(count < sample.min_tokens, NEVER, 0.0))
        if sample.temperature == 0:
            token = jnp.argmax(logits + added, axis=-1)
        else:
            keys = jax.vmap(lambda key: jax.random.fold_in(key, count))(keys)
            token = jax.vmap(jax.random.categorical)(keys, truncated(logits + added, sample))
        token = token.astype(jnp.int32)
        return token, jnp.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]

    def draw(
        params: Params,
        batch: Batch,
        keys: Any,
        prompt: Int[Array, "B P"] | None = None,
        prompt_mask: Bool[Array, "B P"] | None = None,
    ) -> Decoded:
        prompt, mask = prompt_of(model, config, batch, prompt, prompt_mask)
        rows, length = prompt.shape
        room = length + sample.max_tokens - 1  # the last token is not fed
        encoded, memory = {}, 0
        if model.encoder is not None:
            hidden = encode(model, params, batch).hidden[-1]
            encoded, memory = dict(memory=hidden), hidden.shape[1]
        memory_mask = None if model.encoder is None else batch.mask
        caches = empty(config, rows, room, memory)
        seen = jnp.pad(mask, ((0, 0), (0, room - length)))
        last = length - 1 - jnp.argmax(mask[:, ::-1], axis=1)
        outputs, caches = advance(
            model, params, prompt, sequential(seen, 0, length), caches,
            at=last[:, None], memory_mask=memory_mask, **encoded,
        )  # fmt: skip
        token, log_p = choose(outputs.logits[:, 0], 0, keys)
        tokens = jnp.full((rows, sample.max_tokens), pad, jnp.int32).at[:, 0].set(token)
        # A row is unfinished until its end token; later steps leave it as it is.
        start = (jnp.ones((), jnp.int32), tokens, jnp.ones(rows, jnp.int32), log_p,
                 ~jnp.isin(token, eos), seen, caches)  # fmt: skip

        def more(state: Any) -> Any:
            return (state[0] < sample.max_tokens) & state[4].any()

        def step(state: Any) -> Any:
            count, tokens, lengths, log_p, unfinished, seen, caches = state
            column = length + count - 1
            seen = seen.at[:, column].set(True)
            fed = jax.lax.dynamic_slice_in_dim(tokens, count - 1, 1, axis=1)
            outputs, caches = advance(
                model, params, fed, sequential(seen, column, 1), caches, memory_mask=memory_mask
            )
            token, added = choose(outputs.logits[:, 0], count, keys)
            tokens = tokens.at[:, count].set(jnp.where(unfinished, token, pad))
            lengths, log_p = lengths + unfinished, log_p + jnp.where(unfinished, added, 0.0)
            unfinished &= ~jnp.isin(token, eos)
            return count + 1, tokens, lengths, log_p, unfinished, seen, caches

        _, tokens, lengths, log_p, *_ = jax.lax.while_loop(more, step, start)
        return Decoded(tokens[:, None], lengths[:, None], log_p[:, None], log_p[:, None])

    return draw


def greedy(model: Model, config: Config, max_tokens: int, **options: Any) -> Callable[..., Decoded]:
    """Always the likeliest token: as `sampler`, jitted, without keys."""
    draw = sampler(model, config, Sample(max_tokens=max_tokens, temperature=0.0), **options)
    return jax.jit(functools.partial(draw, keys=None))
