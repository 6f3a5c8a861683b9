"""Beam search: the most probable continuations of each row, several at a time.

Beams of a row stand side by side in one cache (models/cache_positions.py): a beam that goes on from
another sees that one's columns, and nothing is copied. Every few tokens the columns that no beam
sees any longer are thrown out: the more ancestors beams have in common, the less is read for each
of them. Cross-attention takes a row's beams as so many queries of one memory.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxkd.core.batch import Batch
from jaxkd.core.names import did_you_mean
from jaxkd.core.tree import map_named
from jaxkd.decode.cached import advance, empty, grown
from jaxkd.decode.candidates import NEVER, candidates
from jaxkd.models.cache_positions import CachePositions, sequential
from jaxkd.models.config import Config
from jaxkd.models.model import Model, Params, encode

EARLY = ("true", "false", "never")


@dataclasses.dataclass
class Beam:
    """How a beam searches; the words and their meaning are those of transformers' `generate`."""

    width: int = 4  # beams a row
    max_tokens: int = 64  # new ones at most, the end token counted
    min_tokens: int = 0  # tokens before the end token may come
    length_penalty: float = 1.0  # a score is log-probability / tokens ** length_penalty
    # When a row is done: "true" as soon as `width` have ended; "false" when no running beam,
    # ending now, would be among them; "never" when none could be at any length.
    early_stopping: str = "false"
    n_best: int = 1  # of `width`, best first

    def check(self) -> None:
        if self.early_stopping not in EARLY:
            raise ValueError(
                f"early_stopping={self.early_stopping!r}. "
                + did_you_mean(self.early_stopping, EARLY)
            )
        if not 1 <= self.n_best <= self.width:
            raise ValueError(f"n_best is {self.n_best}, of a beam of width {self.width}.")
        if not 0 <= self.min_tokens <= self.max_tokens or self.max_tokens < 1:
            raise ValueError(
                f"min_tokens is {self.min_tokens} and max_tokens {self.max_tokens}: at least one "
                "token, and no more at least than at most."
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decoded:
    """What was written, best first."""

    tokens: Any  # [B, N, T] int32, padded after the end token
    lengths: Any  # [B, N] tokens, the end token counted
    log_probability: Any  # [B, N] of all of them, given the row
    scores: Any  # [B, N] what they are sorted by


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Found:
    """The best hypotheses that have ended; NEVER scores where there are fewer."""

    tokens: Array  # [B, K, T]
    lengths: Array  # [B, K]
    log_probability: Array  # [B, K]
    scores: Array  # [B, K]
    ended: Array  # [B, K] bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
    """All that changes from token to token."""

    count: Any  # scalar: tokens chosen so far
    tokens: Array  # [B, K, T] of the running beams
    shown: Array  # [B, K, S] bool: the columns of the cache that each beam sees
    column: Any  # scalar: where the next tokens' columns begin
    running: Array  # [B, K] log-probability, best first
    open: Array  # [B] bool: rows that may still find something better
    found: _Found
    prompt: Array  # [B] tokens of the prompts
    caches: Any
    memory_mask: Any  # [B, M] of an encoder-decoder


def searcher(
    model: Model,
    config: Config,
    beam: Beam,
    *,
    ends: Sequence[int],
    pad: int = 0,
    suppress_tokens: Sequence[int] = (),
    segment: int = 16,
    devices: int = 1,
) -> Callable[..., Decoded]:
    """The search as a function of parameters and rows; one compilation a shape of rows.

    Args:
      ends: tokens that end a sequence.
      suppress_tokens: tokens that are never written.
      segment: after so many tokens the search stops if all rows are done, and throws out what no
        beam sees of the cache.
    Returns: search(params, batch, prompt=None, prompt_mask=None) -> Decoded. An encoder-decoder
    reads `batch` and begins with `config.start` if there is no prompt; a decoder's prompt is
    `batch.tokens`. Prompts may be padded on either side.
    Raises:
      ValueError: if `beam` is no beam; when called, if a prompt and its continuation are longer
        than the model's positions, or rows do not divide over the devices.
    """
    beam.check()
    steps = _Steps(model, config, beam, tuple(ends), pad, tuple(suppress_tokens))
    lowered = jax.jit(functools.partial(in_compute_dtype, config))
    held: list[Any] = [None, None]  # the parameters as they came, and as they are multiplied
    if devices == 1:
        begin, go_on = jax.jit(steps.begin), jax.jit(steps.go_on)
        tidy = jax.jit(steps.tidy, static_argnums=(1, 2))
    else:
        on = dict(devices=jax.local_devices()[:devices])
        begin = jax.pmap(steps.begin, in_axes=(None, 0, 0, 0), **on)
        go_on = jax.pmap(steps.go_on, in_axes=(None, 0, None), **on)
        tidy = jax.pmap(
            steps.tidy, in_axes=(0, None, None), static_broadcasted_argnums=(1, 2), **on
        )

    def search(
        params: Params,
        batch: Batch,
        prompt: Int[Array, "B P"] | None = None,
        prompt_mask: Bool[Array, "B P"] | None = None,
    ) -> Decoded:
        given = (batch, *prompt_of(model, config, batch, prompt, prompt_mask))
        if devices > 1:
            given = jax.tree.map(functools.partial(_cut, devices), given)
        if held[0] is not params:  # once for all batches
            held[:] = params, lowered(params)
        params = held[1]
        state = begin(params, *given)
        # All devices count alike until their rows are done.
        while (done := int(jnp.max(state.count))) < beam.max_tokens and bool(state.open.any()):
            state = tidy(state, kept_columns(state.shown), segment * beam.width)
            state = go_on(params, state, min(done + segment, beam.max_tokens))
        found = state.found
        if devices > 1:
            found = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
        return steps.decoded(found)

    return search


def kept_columns(shown: Bool[Array, "... B K S"]) -> int:
    """Columns that hold all that some beam of a row sees, in few different numbers: each is a
    compilation.

    >>> [kept_columns(jnp.ones((1, 2, n), bool)) for n in (20, 33, 129, 300)]
    [32, 64, 192, 384]
    """
    alive = int(shown.any(-2).sum(-1).max())
    power = 1 << max(0, alive - 1).bit_length()  # the next power of two
    fineness = max(32, power // 4)
    return -(-alive // fineness) * fineness


def in_compute_dtype(config: Config, params: Params) -> Params:
    """Matrices in the type they are multiplied in (an LSTM's own: float32); the rest as it is."""

    def lower(name: str, leaf: Array) -> Array:
        kept = leaf.ndim < 2 or name.rsplit("/", 1)[-1] in ("bias", "recurrent")
        return leaf if kept else leaf.astype(config.dtype)

    return map_named(lower, params)


def prompt_of(
    model: Model, config: Config, batch: Batch, prompt: Any, mask: Any
) -> tuple[Any, Any]:
    """What is gone on from: a prompt, an encoder-decoder's first token, or a decoder's rows."""
    if prompt is None and model.encoder is not None:
        prompt = jnp.full((batch.rows, 1), config.start, jnp.int32)
    elif prompt is None:
        prompt, mask = batch.tokens, batch.mask
    return prompt, jnp.ones(prompt.shape, bool) if mask is None else mask


def _cut(devices: int, rows: Any) -> Any:
    if len(rows) % devices:
        raise ValueError(
            f"{len(rows)} rows do not divide over {devices} devices. Choose batch_size as a "
            "multiple of them."
        )
    return rows.reshape(devices, -1, *rows.shape[1:])


@dataclasses.dataclass(frozen=True, eq=False)
class _Steps:
    """The search's pure functions."""

    model: Model
    config: Config
    beam: Beam
    ends: tuple[int, ...]
    pad: int
    suppress_tokens: tuple[int, ...]

    def begin(self, params: Params, batch: Batch, prompt: Array, prompt_mask: Array) -> _State:
        """The rows read, the prompts too, and the first tokens chosen."""
        (rows, length), width = prompt.shape, self.beam.width
        given, memory = {}, 0
        if self.model.encoder is not None:
            read = encode(self.model, params, batch).hidden[-1]
            given, memory = dict(memory=read, memory_mask=batch.mask), read.shape[1]
        positions = length + self.beam.max_tokens - 1  # the last token is not fed
        caches = empty(self.config, rows, length, memory, positions=positions)
        last = length - 1 - jnp.argmax(prompt_mask[:, ::-1], axis=1)
        places = sequential(prompt_mask, 0, length)
        outputs, caches = advance(
            self.model, params, prompt, places, caches, at=last[:, None], **given
        )
        alike = jnp.zeros((rows, width), jnp.int32)
        caches = tuple(self.config.follow(cache, alike) for cache in caches)
        blank = jnp.full((rows, width, self.beam.max_tokens), self.pad, jnp.int32)
        none = jnp.zeros((rows, width), jnp.float32)
        state = _State(
            count=jnp.zeros((), jnp.int32),
            tokens=blank,
            shown=jnp.repeat(prompt_mask[:, None], width, axis=1),
            column=jnp.full((), length, jnp.int32),
            # One beam to begin with: all would choose the same.
            running=none.at[:, 1:].set(NEVER),
            open=jnp.ones(rows, bool),
            found=_Found(
                blank, jnp.zeros((rows, width), jnp.int32), none, none + NEVER, none.astype(bool)
            ),
            prompt=prompt_mask.sum(1),
            caches=caches,
            memory_mask=batch.mask if given else None,
        )
        return self._choose(state, jnp.repeat(outputs.logits, width, axis=1))

    def tidy(self, state: _State, kept: int, more: int) -> _State:
        """The same with `kept` columns of the cache, those that beams see, and room for `more`."""
        rows, _, there = state.shown.shape
        shown, caches, column = state.shown, state.caches, state.column
        if kept < there:
            alive = shown.any(1)
            columns = jnp.argsort(~alive, axis=1, stable=True)[:, :kept]
            shown = jnp.take_along_axis(shown, columns[:, None], axis=2)
            caches = tuple(self.config.take(cache, columns) for cache in caches)
            column = jnp.full((), kept, jnp.int32)
        return dataclasses.replace(
            state,
            shown=jnp.pad(shown, [(0, 0), (0, 0), (0, more)]),
            column=column,
            caches=grown(self.config, caches, rows, min(kept, there) + more),
        )

    def go_on(self, params: Params, state: _State, until: Any) -> _State:
        """One token after the other, until there are so many or all rows are done."""

        def more(state: _State) -> Any:
            return (state.count < until) & state.open.any()

        return jax.lax.while_loop(more, functools.partial(self._step, params), state)

    def _step(self, params: Params, state: _State) -> _State:
        width, before = self.beam.width, state.count - 1
        rows, _, room = state.shown.shape
        own = jnp.arange(room) == state.column + jnp.arange(width)[:, None]
        state = dataclasses.replace(state, shown=state.shown | own, column=state.column + width)
        places = CachePositions(
            start=state.column - width,
            shown=state.shown,
            positions=jnp.broadcast_to(state.prompt[:, None] + before, (rows, width)),
            here=jnp.ones((rows, width), bool),
            beside=True,
        )
        tokens = jax.lax.dynamic_index_in_dim(state.tokens, before, axis=2, keepdims=False)
        outputs, caches = advance(
            self.model, params, tokens, places, state.caches, memory_mask=state.memory_mask
        )
        return self._choose(dataclasses.replace(state, caches=caches), outputs.logits)

    def _choose(self, state: _State, logits: Array) -> _State:
        """The next token of each beam; what ends goes to the found ones."""
        beam, width = self.beam, self.beam.width
        total, parent, token = candidates(
            logits, state.running, (1 + len(self.ends)) * width, self._bars(state, logits.shape[2])
        )
        count = state.count + 1
        ended = jnp.isin(token, jnp.array(self.ends, jnp.int32)) | (count == beam.max_tokens)

        def to(chosen: Array) -> tuple[Array, Array, Array]:
            """Of the chosen candidates: log-probability, tokens, parents."""
            its = functools.partial(jnp.take_along_axis, indices=chosen, axis=1)
            parents, new = its(parent), its(token)
            tokens = jnp.take_along_axis(state.tokens, parents[..., None], axis=1)
            return its(total), tokens.at[:, :, state.count].set(new), parents

        running, chosen = jax.lax.top_k(total + NEVER * ended, width)
        _, tokens, parents = to(chosen)
        shown = jnp.take_along_axis(state.shown, parents[..., None], axis=1)
        caches = tuple(self.config.follow(cache, parents) for cache in state.caches)

        # Only a hypothesis among the best `width` candidates may end.
        first = jnp.broadcast_to(jnp.arange(width), (len(total), width))
        log_probability, ending, _ = to(first)
        mine = _Found(
            tokens=ending,
            lengths=jnp.broadcast_to(count, first.shape),
            log_probability=log_probability,
            scores=log_probability / count.astype(jnp.float32) ** beam.length_penalty,
            ended=ended[:, :width],
        )
        shut = ~state.open[:, None] | ~mine.ended
        mine = dataclasses.replace(mine, scores=jnp.where(shut, NEVER, mine.scores))
        found = _best(state.found, mine, width)
        return dataclasses.replace(
            state,
            count=count,
            tokens=tokens,
            shown=shown,
            running=running,
            open=state.open & self._open(found, running, count),
            found=found,
            caches=caches,
        )

    def _bars(self, state: _State, vocabulary: int) -> Array | None:
        if not self.suppress_tokens and not self.beam.min_tokens:
            return None
        bars = jnp.zeros(vocabulary).at[jnp.array(self.suppress_tokens, jnp.int32)].set(NEVER)
        early = jnp.where(state.count < self.beam.min_tokens, NEVER, 0.0)
        return bars.at[jnp.array(self.ends, jnp.int32)].add(early)

    def _open(self, found: _Found, running: Array, count: Any) -> Array:
        """Rows in which a running beam may still become one of the best."""
        beam = self.beam
        full = found.ended.all(1)
        if beam.early_stopping == "true":
            return ~full
        longest = beam.early_stopping == "never" and beam.length_penalty > 0
        length = jnp.asarray(beam.max_tokens if longest else count, jnp.float32)
        possible = running[:, 0] / length**beam.length_penalty
        return ~full | (possible > found.scores.min(1))

    def decoded(self, found: _Found) -> Decoded:
        """The n best of those that ended."""
        best = jax.tree.map(lambda x: x[:, : self.beam.n_best], found)
        after = jnp.arange(self.beam.max_tokens) >= best.lengths[..., None]
        tokens = jnp.where(after, self.pad, best.tokens)
        return Decoded(tokens, best.lengths, best.log_probability, best.scores)


def _best(old: _Found, new: _Found, count: int) -> _Found:
    """The best of both by score, best first; in a tie the old."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), old, new)
    _, where = jax.lax.top_k(both.scores, count)
    return jax.tree.map(
        lambda x: jnp.take_along_axis(x, where[..., None] if x.ndim == 3 else where, axis=1), both
    )
