"""Beam search: the most probable continuations of each row, several at a time.

Beams of a row share one cache (models/cache_positions.py): a beam that continues another attends to
that one's columns, and nothing is copied. Every few tokens the columns that no beam attends to any
longer are removed: the more ancestors beams have in common, the less is read for each of them.
Cross-attention takes a row's beams as several queries of one memory.
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
from jaxkd.models import axes
from jaxkd.models.cache_positions import CachePositions, sequential
from jaxkd.models.config import Config
from jaxkd.models.model import Model, Params, encode

EARLY = ("true", "false", "never")


@dataclasses.dataclass
class Beam:
    """How a beam searches; names and meanings are those of transformers' `generate`."""

    width: int = 4  # beams a row
    max_tokens: int = 64  # new ones at most, the end token counted
    min_tokens: int = 0  # tokens before the end token may come
    length_penalty: float = 1.0  # a score is log-probability / tokens ** length_penalty
    # When a row is done: "true" as soon as `width` have ended; "false" when no running beam,
    # ending now, would be among them; "never" when none could be at any length. A beam of width 1
    # is greedy: its row is done with its first end token, whatever is set here.
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
    """Hypotheses of each row, best first."""

    tokens: Any  # [B, N, T] int32, padded after the end token
    lengths: Any  # [B, N] tokens, the end token counted
    log_probability: Any  # [B, N] of all tokens, given the row
    scores: Any  # [B, N] the key they are sorted by


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Finished:
    """The best hypotheses that have ended; NEVER scores where there are fewer."""

    tokens: Array  # [B, K, T]
    lengths: Array  # [B, K]
    log_probability: Array  # [B, K]
    scores: Array  # [B, K]
    ended: Array  # [B, K] bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
    """The variables of the search's loop."""

    count: Any  # scalar: tokens chosen so far
    tokens: Array  # [B, K, T] of the running beams
    attention_mask: Array  # [B, K, S] bool: the columns of the cache that each beam attends to
    column: Any  # scalar: where the next tokens' columns begin
    running: Array  # [B, K] log-probability, best first
    unfinished: Array  # [B] bool: rows that may still find a better hypothesis
    finished: _Finished
    prompt: Array  # [B] tokens of the prompts
    caches: Any
    memory_mask: Any  # [B, M] of an encoder-decoder


def searcher(
    model: Model,
    config: Config,
    beam: Beam,
    *,
    eos_ids: Sequence[int],
    pad: int = 0,
    suppress_tokens: Sequence[int] = (),
    segment: int = 16,
    devices: int = 1,
) -> Callable[..., Decoded]:
    """The search as a function of parameters and rows; one compilation a shape of rows.

    Args:
      eos_ids: tokens that end a sequence.
      suppress_tokens: tokens that are never generated.
      segment: after each `segment` tokens the search stops if all rows are done, and removes the
        columns of the cache that no beam attends to.
    Returns: search(params, batch, prompt=None, prompt_mask=None) -> Decoded. An encoder-decoder
    encodes `batch` and begins with `config.start` if there is no prompt; a decoder's prompt is
    `batch.tokens`. Prompts may be padded on either side.
    Raises:
      ValueError: for impossible settings of `beam`; when called, if a prompt and its continuation
        are longer than the model's positions, or rows do not divide over the devices.
    """
    beam.check()
    steps = _Steps(model, config, beam, tuple(eos_ids), pad, tuple(suppress_tokens))
    lowered = jax.jit(functools.partial(in_compute_dtype, config))
    last: list[Any] = [None, None]  # the parameters as they came, and in the compute dtype
    if devices == 1:
        begin, advance_to = jax.jit(steps.begin), jax.jit(steps.advance_to)
        compact = jax.jit(steps.compact_cache, static_argnums=(1, 2))
    else:
        on = dict(devices=jax.local_devices()[:devices])
        begin = jax.pmap(steps.begin, in_axes=(None, 0, 0, 0), **on)
        advance_to = jax.pmap(steps.advance_to, in_axes=(None, 0, None), **on)
        compact = jax.pmap(
            steps.compact_cache, in_axes=(0, None, None), static_broadcasted_argnums=(1, 2), **on
        )

    def in_type(params: Params) -> Params:
        """As they are where they have their types already; else converted once for all batches."""
        types = jax.tree.map(lambda leaf: leaf.dtype, params)
        if types == jax.tree.map(lambda leaf: leaf.dtype, jax.eval_shape(lowered, params)):
            return params
        if last[0] is not params:
            last[:] = params, lowered(params)
        return last[1]

    def search(
        params: Params,
        batch: Batch,
        prompt: Int[Array, "B P"] | None = None,
        prompt_mask: Bool[Array, "B P"] | None = None,
    ) -> Decoded:
        inputs = (batch, *prompt_of(model, config, batch, prompt, prompt_mask))
        if devices > 1:
            inputs = jax.tree.map(functools.partial(_cut, devices), inputs)
        params = in_type(params)
        state = begin(params, *inputs)
        # All devices count alike until their rows are done.
        while (done := int(jnp.max(state.count))) < beam.max_tokens and bool(
            state.unfinished.any()
        ):
            state = compact(state, kept_columns(state.attention_mask), segment * beam.width)
            state = advance_to(params, state, min(done + segment, beam.max_tokens))
        finished = state.finished
        if devices > 1:
            finished = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), finished)
        return steps.decoded(finished)

    return search


def kept_columns(attention_mask: Bool[Array, "... B K S"]) -> int:
    """Columns that hold all that some beam of a row attends to, rounded up to few different
    numbers, because each is a compilation.

    >>> [kept_columns(jnp.ones((1, 2, n), bool)) for n in (20, 33, 129, 300)]
    [32, 64, 192, 384]
    """
    alive = int(attention_mask.any(-2).sum(-1).max())
    power = 1 << max(0, alive - 1).bit_length()  # the next power of two
    fineness = max(32, power // 4)
    return -(-alive // fineness) * fineness


def in_compute_dtype(config: Config, params: Params) -> Params:
    """Matrices in the type they are multiplied in (an LSTM's recurrent ones: float32); the rest as
    it is."""

    def lower(name: str, leaf: Array) -> Array:
        letters = axes.axes(name, leaf.ndim)
        lowered = axes.is_matrix(letters) and not axes.is_recurrent(letters)
        return leaf.astype(config.dtype) if lowered else leaf

    return map_named(lower, params)


def prompt_of(
    model: Model, config: Config, batch: Batch, prompt: Any, mask: Any
) -> tuple[Any, Any]:
    """The tokens to continue: a prompt, an encoder-decoder's first token, or a decoder's rows."""
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
    eos_ids: tuple[int, ...]
    pad: int
    suppress_tokens: tuple[int, ...]

    def begin(self, params: Params, batch: Batch, prompt: Array, prompt_mask: Array) -> _State:
        """The state after the rows are encoded, the prompts too, and the first tokens chosen."""
        (rows, length), width = prompt.shape, self.beam.width
        encoded, memory = {}, 0
        if self.model.encoder is not None:
            hidden = encode(self.model, params, batch).hidden[-1]
            encoded, memory = dict(memory=hidden, memory_mask=batch.mask), hidden.shape[1]
        positions = length + self.beam.max_tokens - 1  # the last token is not fed
        caches = empty(self.config, rows, length, memory, positions=positions)
        last = length - 1 - jnp.argmax(prompt_mask[:, ::-1], axis=1)
        outputs, caches = advance(
            self.model, params, prompt, sequential(prompt_mask, 0, length), caches,
            at=last[:, None], **encoded,
        )  # fmt: skip
        caches = self._reordered(caches, jnp.zeros((rows, width), jnp.int32))
        blank = jnp.full((rows, width, self.beam.max_tokens), self.pad, jnp.int32)
        none = jnp.zeros((rows, width), jnp.float32)
        state = _State(
            count=jnp.zeros((), jnp.int32),
            tokens=blank,
            attention_mask=jnp.repeat(prompt_mask[:, None], width, axis=1),
            column=jnp.full((), length, jnp.int32),
            # One beam to begin with: all would choose the same.
            running=none.at[:, 1:].set(NEVER),
            unfinished=jnp.ones(rows, bool),
            finished=_Finished(
                blank, jnp.zeros((rows, width), jnp.int32), none, none + NEVER, none.astype(bool)
            ),
            prompt=prompt_mask.sum(1),
            caches=caches,
            memory_mask=batch.mask if encoded else None,
        )
        return self._choose(state, jnp.repeat(outputs.logits, width, axis=1))

    def compact_cache(self, state: _State, kept: int, more: int) -> _State:
        """The same with `kept` columns of the cache, those beams attend to, and room for `more`."""
        rows, _, room = state.attention_mask.shape
        mask, caches, column = state.attention_mask, state.caches, state.column
        if kept < room:
            alive = mask.any(1)
            columns = jnp.argsort(~alive, axis=1, stable=True)[:, :kept]
            mask = jnp.take_along_axis(mask, columns[:, None], axis=2)
            caches = tuple(
                self.config.block(i).gather_columns(cache, columns)
                for i, cache in enumerate(caches)
            )
            column = jnp.full((), kept, jnp.int32)
        return dataclasses.replace(
            state,
            attention_mask=jnp.pad(mask, [(0, 0), (0, 0), (0, more)]),
            column=column,
            caches=grown(self.config, caches, rows, min(kept, room) + more),
        )

    def _reordered(self, caches: Any, parents: Array) -> Any:
        return tuple(
            self.config.block(i).reorder_cache(cache, parents) for i, cache in enumerate(caches)
        )

    def advance_to(self, params: Params, state: _State, until: Any) -> _State:
        """One token after the other, up to `until` tokens or until all rows are done."""

        def more(state: _State) -> Any:
            return (state.count < until) & state.unfinished.any()

        return jax.lax.while_loop(more, functools.partial(self._step, params), state)

    def _step(self, params: Params, state: _State) -> _State:
        width, before = self.beam.width, state.count - 1
        rows, _, room = state.attention_mask.shape
        own = jnp.arange(room) == state.column + jnp.arange(width)[:, None]
        state = dataclasses.replace(
            state, attention_mask=state.attention_mask | own, column=state.column + width
        )
        positions = CachePositions(
            start=state.column - width,
            attention_mask=state.attention_mask,
            positions=jnp.broadcast_to(state.prompt[:, None] + before, (rows, width)),
            token_mask=jnp.ones((rows, width), bool),
            parallel_beams=True,
        )
        tokens = jax.lax.dynamic_index_in_dim(state.tokens, before, axis=2, keepdims=False)
        outputs, caches = advance(
            self.model, params, tokens, positions, state.caches, memory_mask=state.memory_mask
        )
        return self._choose(dataclasses.replace(state, caches=caches), outputs.logits)

    def _choose(self, state: _State, logits: Array) -> _State:
        """The next token of each beam; hypotheses that end move to the finished ones."""
        beam, width = self.beam, self.beam.width
        total, parent, token = candidates(
            logits,
            state.running,
            (1 + len(self.eos_ids)) * width,
            self._suppressed(state, logits.shape[2]),
        )
        count = state.count + 1
        ended = jnp.isin(token, jnp.array(self.eos_ids, jnp.int32)) | (count == beam.max_tokens)

        def to(chosen: Array) -> tuple[Array, Array, Array]:
            """Of the chosen candidates: log-probability, tokens, parents."""
            of_chosen = functools.partial(jnp.take_along_axis, indices=chosen, axis=1)
            parents, new = of_chosen(parent), of_chosen(token)
            tokens = jnp.take_along_axis(state.tokens, parents[..., None], axis=1)
            return of_chosen(total), tokens.at[:, :, state.count].set(new), parents

        running, chosen = jax.lax.top_k(total + NEVER * ended, width)
        _, tokens, parents = to(chosen)
        mask = jnp.take_along_axis(state.attention_mask, parents[..., None], axis=1)
        caches = self._reordered(state.caches, parents)

        # Only a hypothesis among the best `width` candidates may end.
        first = jnp.broadcast_to(jnp.arange(width), (len(total), width))
        log_probability, ending, _ = to(first)
        ending_now = _Finished(
            tokens=ending,
            lengths=jnp.broadcast_to(count, first.shape),
            log_probability=log_probability,
            scores=log_probability / count.astype(jnp.float32) ** beam.length_penalty,
            ended=ended[:, :width],
        )
        no_entry = ~state.unfinished[:, None] | ~ending_now.ended
        scores = jnp.where(no_entry, NEVER, ending_now.scores)
        finished = _best(state.finished, dataclasses.replace(ending_now, scores=scores), width)
        return dataclasses.replace(
            state,
            count=count,
            tokens=tokens,
            attention_mask=mask,
            running=running,
            unfinished=state.unfinished & self._unfinished(finished, running, count),
            finished=finished,
            caches=caches,
        )

    def _suppressed(self, state: _State, vocabulary: int) -> Array | None:
        if not self.suppress_tokens and not self.beam.min_tokens:
            return None
        added = jnp.zeros(vocabulary).at[jnp.array(self.suppress_tokens, jnp.int32)].set(NEVER)
        early = jnp.where(state.count < self.beam.min_tokens, NEVER, 0.0)
        return added.at[jnp.array(self.eos_ids, jnp.int32)].add(early)

    def _unfinished(self, finished: _Finished, running: Array, count: Any) -> Array:
        """Rows in which a running beam may still become one of the best."""
        beam = self.beam
        full = finished.ended.all(1)
        if beam.early_stopping == "true" or beam.width == 1:
            return ~full
        longest = beam.early_stopping == "never" and beam.length_penalty > 0
        length = jnp.asarray(beam.max_tokens if longest else count, jnp.float32)
        possible = running[:, 0] / length**beam.length_penalty
        return ~full | (possible > finished.scores.min(1))

    def decoded(self, finished: _Finished) -> Decoded:
        """The n best finished hypotheses."""
        best = jax.tree.map(lambda x: x[:, : self.beam.n_best], finished)
        after = jnp.arange(self.beam.max_tokens) >= best.lengths[..., None]
        tokens = jnp.where(after, self.pad, best.tokens)
        return Decoded(tokens, best.lengths, best.log_probability, best.scores)


def _best(old: _Finished, new: _Finished, count: int) -> _Finished:
    """The best of both by score, best first; in a tie the old."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), old, new)
    _, where = jax.lax.top_k(both.scores, count)
    return jax.tree.map(
        lambda x: jnp.take_along_axis(x, where[..., None] if x.ndim == 3 else where, axis=1), both
    )
