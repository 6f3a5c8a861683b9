"""Runs a classifier or another model that answers in one pass, with its early exits."""

import numpy as np

from jaxkd.device.blocks import Clock, lead_of
from jaxkd.device.errors import DamagedBundle, UsageError
from jaxkd.device.folder import entry, whole_number
from jaxkd.device.layered import Layered
from jaxkd.device.rules import Never
from jaxkd.device.tables import Vocabulary


class Answer:
    """What a batch was answered: logits of each row, the exit that gave them, and times."""

    def __init__(self, logits, exits, blocks, clock):
        self.logits = logits  # [B, ...]
        self.exits = exits  # [B] names
        self.blocks = blocks  # [B] blocks that ran for each row
        self.parts = clock.parts  # (name, milliseconds)
        self.milliseconds = clock.milliseconds


class OnePass(Layered):
    """An encoder, or a decoder that classifies."""

    def __init__(self, folder, graphs):
        Layered.__init__(self, folder, graphs)
        manifest = folder.manifest
        self.output = entry(self.model, "output", str, "the model")
        self.vocabulary = None
        if "vocabulary" in manifest:
            self.vocabulary = Vocabulary(folder, graphs, entry(manifest, "vocabulary", dict))
        # (block, name, graph), in order; the head is the last.
        self.heads = sorted(
            (
                whole_number(each, "after", 0, name)
                if "after" in each
                else len(self.stack.blocks) - 1,
                name != "head",
                name,
                entry(each, "graph", str, name),
            )
            for name, each in entry(manifest, "heads", dict).items()
        )
        self.heads = [(after, name, graph) for after, _, name, graph in self.heads]
        last = len(self.stack.blocks) - 1
        if not self.heads or self.heads[-1][:2] != (last, "head"):
            raise DamagedBundle(
                f"the manifest's last head is {self.heads[-1:]!r}, not that of block {last}."
            )

    @property
    def exits(self):
        """Names of the exits, the head being the last."""
        return [name for _, name, _ in self.heads]

    @property
    def stacks(self):
        """The stacks of blocks, each with the blocks after which hidden states are read."""
        return [(self.stack, {after for after, _, _ in self.heads})]

    def state_bytes(self, rows, length):
        """Besides the blocks' activations: logits of every position where it predicts tokens."""
        return 0 if self.vocabulary is None else self.vocabulary.bytes(rows * length)

    def __call__(
        self, ids, mask, segments=None, rule=None, deadline=None, times=None, after_block=None
    ):
        """Answers a batch; every row is answered as it would be alone, but for int8's rounding:
        activations of a batch share a scale.

        Args:
          ids, mask, segments: int64 [B, L].
          rule: of rules.py; None: all blocks run.
          deadline: milliseconds after which no further block begins that would end later.
          times: milliseconds of each block on this machine, for the deadline.
          after_block: called with the number of each block that ran.
        """
        rule = rule or Never()
        if self.vocabulary is None and self.exits[:-1]:
            rule.check(len(self.model["labels"]), len(self.heads))
        elif not isinstance(rule, Never):
            raise UsageError("the model has no early exits; only all blocks can run.")
        if deadline is not None and not self.exits[:-1]:
            raise UsageError("the model has no early exits, and a deadline needs them.")
        clock, shared = Clock(), self._begin(ids, mask, segments)
        clock.lap("embed")
        hidden, rows, memory = shared.pop("hidden"), np.arange(len(ids)), rule.start(len(ids))
        logits, exits = None, [None] * len(ids)
        blocks = np.zeros(len(ids), int)
        heads = {
            after: (name, graph, number) for number, (after, name, graph) in enumerate(self.heads)
        }
        lead = lead_of(ids)
        for group in self.stack.groups:
            hidden, _ = self.stack.step(group, hidden, lead, shared)
            clock.lap_blocks(group)
            i = group[-1]
            blocks[rows] = i + 1
            for number in group if after_block is not None else ():
                after_block(number)
            if i not in heads:
                continue
            name, graph, number = heads[i]
            made = self._head(graph, hidden, lead, mask)
            clock.lap(name)
            if logits is None:
                logits = np.zeros((len(ids),) + made.shape[1:], np.float32)
            stop = rule.decide(memory, made, number) if len(self.heads) > 1 else None
            if name == "head" or self._late(clock, deadline, times, i):
                stop = np.ones(len(rows), bool)
            for row in rows[stop]:
                exits[row] = name
            logits[rows[stop]] = made[stop]
            left = np.flatnonzero(~stop)
            if not len(left):
                return Answer(logits, exits, blocks, clock)
            if len(left) < len(rows):
                hidden = self._of_rows(hidden, left, lead)
                shared = {
                    key: value[left] if len(value) == len(rows) else value
                    for key, value in shared.items()
                }
                rows, mask, memory = rows[left], mask[left], rule.keep(memory, left)
                lead = np.array([len(rows), ids.shape[1]], np.int64)
        raise DamagedBundle("no head answered.")

    def of_every_head(self, ids, mask, segments=None):
        """Logits of each exit and of the head by its name; all blocks run."""
        shared, lead, logits = self._begin(ids, mask, segments), lead_of(ids), {}
        hidden, heads = shared.pop("hidden"), {after: each for after, *each in self.heads}
        for group in self.stack.groups:
            hidden, _ = self.stack.step(group, hidden, lead, shared)
            if group[-1] in heads:
                name, graph = heads[group[-1]]
                logits[name] = self._head(graph, hidden, lead, mask)
        return logits

    def _begin(self, ids, mask, segments):
        feeds = {"input_ids": ids, "attention_mask": mask, "token_rows": self.tokens.rows(ids)}
        if whole_number(self.model, "segments", 0) > 1:
            feeds["token_type_ids"] = np.zeros_like(ids) if segments is None else segments
        return self.graphs.run(self.begin, feeds)

    def _head(self, graph, hidden, lead, mask):
        if self.vocabulary is None:
            feeds = {"hidden": hidden, "lead": lead, "attention_mask": mask}
            return self.graphs.run(graph, feeds)[self.output]
        states = self.graphs.run(graph, {"hidden": hidden})["states"]
        return self.vocabulary.logits(states).reshape(tuple(lead) + (self.vocabulary.table.size,))

    def _late(self, clock, deadline, times, i):
        """Whether the next exit would answer after the deadline."""
        if deadline is None:
            return False
        following = min((after for after, _, _ in self.heads if after > i), default=i)
        further = sum(times[i + 1 : following + 1]) if times is not None else 0.0
        return clock.milliseconds + further > deadline

    def _of_rows(self, hidden, left, lead):
        by_row = hidden.reshape(int(lead[0]), int(lead[1]), -1)
        return np.ascontiguousarray(by_row[left]).reshape(-1, hidden.shape[1])
