"""A batch through a model with early exits: rows leave where their rule stops them.

The blocks run one after another until the rows that are left fit into a smaller batch. Then those
that stopped are taken out, and the rest goes on in a `lax.while_loop`: sizes are powers of two and
three between each two, and each is compiled once. Every row gets the answer it would get alone.
"""

import copy
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxkd.core.batch import Batch
from jaxkd.exits.rules import History, Rule
from jaxkd.models.model import Model, Params, predict
from jaxkd.models.parts import exit_blocks
from jaxkd.models.stack import listed_blocks


@dataclasses.dataclass(frozen=True)
class Answers:
    """Each row's logits, and the number of the exit that gave them, the head being the last."""

    logits: Float[np.ndarray, "B C"]
    exits: Int[np.ndarray, " B"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Running:
    """A batch between two blocks."""

    hidden: Any  # [B, L, D]
    history: History
    logits: Any  # [B, C]: of the exit that stopped a row, or of the last one it passed
    exits: Any  # [B]
    running: Any  # [B]: rows whose rule has not stopped them


class EarlyExit:
    """Runs batches of a model with exits under a rule; holds no parameters."""

    def __init__(self, model: Model, rule: Rule, labels: int):
        """Raises ValueError if the model has no exits, or the rule cannot be used with them.

        Args:
          labels: outputs of an exit; 1 is a regression.
        """
        blocks = exit_blocks(model.heads)
        if not blocks:
            raise ValueError("the model has no early exits: its config's exits is ().")
        rule.check(labels, len(blocks) + 1)
        self.model, self.rule, self.labels = model, rule, labels
        self.number_of_exits = len(blocks) + 1  # the head included
        # Each exit's head, and for each block the number of its exit; -1: it has none.
        self.names = (*blocks, "head")
        self._exit_of = np.full(model.layers, -1)
        self._exit_of[[*blocks.values(), model.layers - 1]] = np.arange(len(self.names))
        self._first = jax.jit(self._from_tokens)  # one call for a batch that nothing leaves early
        self._blocks = jax.jit(self._run_blocks)
        self._gather = jax.jit(_gathered)

    def with_rule(self, rule: Rule) -> "EarlyExit":
        """The same under another rule; what is compiled serves all rules of one kind.

        Raises:
          ValueError: if the rule cannot be used with these exits.
        """
        rule.check(self.labels, self.number_of_exits)
        other = copy.copy(self)
        other.rule = rule
        return other

    def __call__(self, params: Params, batch: Batch) -> Answers:
        """The answers of a batch, in the order of its rows; zeros for rows without a token."""
        rows = batch.rows
        logits = np.zeros((rows, self.labels), np.float32)
        exits = np.zeros(rows, np.int32)
        numbers = np.arange(rows)  # of the rows that are still in the batch
        tokens, mask = batch.tokens, batch.mask
        block, state, block_inputs = self._first(self.rule, params, batch)
        while True:
            results = jax.device_get((state.running, state.logits, state.exits))
            running, answers, at = (np.asarray(each)[: len(numbers)] for each in results)
            logits[numbers[~running]], exits[numbers[~running]] = answers[~running], at[~running]
            left = np.flatnonzero(running)
            if not len(left):
                return Answers(logits, exits)
            size = batch_size(len(left))
            # A batch that is not full has its first row again, as one that has stopped.
            chosen = np.concatenate([left, np.full(size - len(left), left[0])]).astype(np.int32)
            numbers = numbers[left]
            state, tokens, mask = self._gather(chosen, len(left), (state, tokens, mask))
            small = Batch(tokens=tokens, mask=mask)
            block, state = self._blocks(self.rule, params, small, state, block_inputs, block)

    def _from_tokens(
        self, rule: Rule, params: Params, batch: Batch
    ) -> tuple[Any, _Running, dict[str, Any]]:
        """Embedding, and the blocks that all rows of a batch go through together.

        As `_run_blocks` from block 0 on, in conditions within each other. As a loop, batches of one
        row took 0 to 9% more time (MiniLM-L6's shape, 64 tokens, three mean depths, 9 rounds in
        turns, 2 cores of a Xeon).
        """
        state, block_inputs = self._embedded(params, batch)

        def from_block(i: int, state: _Running) -> tuple[Any, _Running]:
            if i == self.model.layers:
                return jnp.int32(i), state
            return jax.lax.cond(
                self._full(batch, state),
                lambda s: from_block(i + 1, self._step(i, rule, batch, block_inputs, params, s)),
                lambda s: (jnp.int32(i), s),
                state,
            )

        return *from_block(0, state), block_inputs

    def _full(self, batch: Batch, state: _Running) -> Any:
        """Whether the rows that are running need a batch of this size."""
        smaller = max((n for n in range(batch.rows) if batch_size(n) == n), default=0)
        return jnp.sum(state.running) > smaller

    def _embedded(self, params: Params, batch: Batch) -> tuple[_Running, dict[str, Any]]:
        hidden, block_inputs = self.model.embed.apply(
            {"params": params["embed"]}, batch.tokens, batch.mask, batch.segments
        )
        rows = batch.tokens.shape[0]
        zeros = jnp.zeros((rows, self.labels), jnp.float32)
        counted = jnp.zeros(rows, jnp.int32)
        history = History.start(rows, self.labels)
        running = jnp.any(batch.mask, 1)  # rows that only fill a batch up have no token
        return _Running(hidden, history, zeros, counted, running), block_inputs

    def _run_blocks(
        self,
        rule: Rule,
        params: Params,
        batch: Batch,
        state: _Running,
        block_inputs: Any,
        first: Any,
    ) -> tuple[Any, _Running]:
        """From block `first` on, until the rows fit into a smaller batch or all blocks have run."""
        last = self.model.layers - 1
        steps = [
            functools.partial(self._step, i, rule, batch, block_inputs) for i in range(last + 1)
        ]

        def more(carry: tuple[Any, _Running]) -> Any:
            block, state = carry
            return (block <= last) & self._full(batch, state)

        def body(carry: tuple[Any, _Running]) -> tuple[Any, _Running]:
            block, state = carry
            return block + 1, jax.lax.switch(block, steps, params, state)

        return jax.lax.while_loop(more, body, (first, state))

    def _step(
        self,
        i: int,
        rule: Rule,
        batch: Batch,
        block_inputs: Any,
        params: Params,
        state: _Running,
    ) -> _Running:
        """One block, and what its exit decides."""
        blocks = listed_blocks(params["blocks"])
        hidden, _ = self.model.blocks[i].apply(
            {"params": blocks[0 if self.model.shared else i]}, state.hidden, batch.mask,
            **block_inputs,
        )  # fmt: skip
        number = int(self._exit_of[i])
        if number < 0:
            return dataclasses.replace(state, hidden=hidden)
        now, _ = predict(self.model, params, batch, hidden, head=self.names[number])
        history, stop = rule.decide(state.history, now, number)
        if i == self.model.layers - 1:
            stop = jnp.ones_like(stop)
        return _Running(
            hidden,
            history,
            jnp.where(state.running[:, None], now, state.logits),
            jnp.where(state.running, number, state.exits),
            state.running & ~stop,
        )


def _gathered(
    chosen: Int[Array, " b"], count: Any, rows: tuple[_Running, Any, Any]
) -> tuple[_Running, Any, Any]:
    """The chosen rows, of which the first `count` are running."""
    state, tokens, mask = jax.tree.map(lambda leaf: leaf[chosen], rows)
    running = jnp.arange(chosen.shape[0]) < count
    return dataclasses.replace(state, running=running), tokens, mask


def batch_size(rows: int) -> int:
    """The least size of a batch that holds that many rows: four sizes between powers of two.

    >>> [batch_size(rows) for rows in (0, 1, 3, 5, 9, 13, 17, 25)]
    [0, 1, 3, 5, 10, 14, 20, 28]
    """
    step = max(1, (1 << max(rows - 1, 0).bit_length()) // 8)
    return -(-rows // step) * step
