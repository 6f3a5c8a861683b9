"""Runs models that write token after token: decoders with a cache, and encoder-decoders."""

import numpy as np

from jaxkd.device.blocks import Clock, Stack, lead_of
from jaxkd.device.errors import DamagedBundle, UsageError
from jaxkd.device.folder import entry, whole_number
from jaxkd.device.layered import Layered
from jaxkd.device.tables import Table, Vocabulary


class Decoder(Layered):
    """A decoder alone; the prompt is what it continues."""

    def __init__(self, folder, graphs):
        Layered.__init__(self, folder, graphs)
        manifest = folder.manifest
        heads = entry(manifest, "heads", dict)
        self.head = entry(entry(heads, "head", dict), "graph", str)
        self.vocabulary = Vocabulary(folder, graphs, entry(manifest, "vocabulary", dict))
        self.max_length = whole_number(self.model, "max_length", 1)
        self._past, self._length, self._last = None, 0, None
        self.clock = Clock()

    @property
    def stacks(self):
        """The stacks of blocks, each with the blocks after which hidden states are read: none."""
        return [(self.stack, set())]

    def state_bytes(self, rows, length):
        """Besides the blocks' activations: the cache, three times in a step, and logits."""
        row = 0
        for shape in entry(self.model, "cache", dict, "the model").values():
            sizes = [whole_number({"n": n}, "n", 0) or length for n in shape]
            row += 4 * int(np.prod(sizes))
        return 3 * rows * row * len(self.stack.blocks) + self.vocabulary.bytes(rows)

    def logits(self, ids, mask):
        """Logits of all positions: int64 [B, L] -> [B, L, V]."""
        self._past, self._length = self._empty(len(ids)), 0
        states = self._advance(ids, mask, every=True)
        return self.vocabulary.logits(states).reshape(ids.shape + (self.vocabulary.table.size,))

    def first(self, prompt):
        """Logits after a prompt, int64 [L] -> [1, V]; earlier ones are forgotten."""
        if not len(prompt):
            raise UsageError("the prompt has no token.")
        self._past, self._length = self._empty(1), 0
        return self._logits(prompt[None])

    def next(self, tokens, parents):
        """Logits of each beam with one token more, int64 [K] -> [K, V]."""
        self._past = [{name: array[parents] for name, array in past.items()} for past in self._past]
        return self._logits(tokens[:, None])

    def _logits(self, ids):
        if self._length + ids.shape[1] > self.max_length:
            raise UsageError(
                f"the prompt and its continuation are longer than the model's {self.max_length} "
                "positions."
            )
        mask = np.ones((len(ids), self._length + ids.shape[1]), np.int64)
        return self.vocabulary.logits(self._advance(ids, mask))

    def _advance(self, ids, mask, every=False):
        """States before the vocabulary of the last position, or of every one."""
        shared = self.graphs.run(self.begin, self._begin_feeds(ids, mask))
        hidden, lead = shared.pop("hidden"), lead_of(ids)
        self.clock.lap("embed")
        for group in self.stack.groups:
            more = {i: self._state(i) for i in group}
            hidden, made = self.stack.step(group, hidden, lead, shared, more)
            for i, own in zip(group, made):
                self._past[i] = {name[len("present.") :]: array for name, array in own.items()}
            self.clock.lap_blocks(group)
        self._length += ids.shape[1]
        if not every:
            hidden = hidden.reshape(len(ids), ids.shape[1], -1)[:, -1]
        states = self.graphs.run(self.head, {"hidden": np.ascontiguousarray(hidden)})["states"]
        self.clock.lap("head")
        return states

    def _begin_feeds(self, ids, mask):
        return {"input_ids": ids, "attention_mask": mask, "token_rows": self.tokens.rows(ids)}

    def _state(self, i):
        """What block i reads besides hidden states: its cache."""
        return {"past." + name: array for name, array in self._past[i].items()}

    def _empty(self, rows):
        cache = entry(self.model, "cache", dict, "the model")
        return [
            {
                name: np.zeros([rows] + [whole_number({"n": n}, "n", 0) for n in shape], np.float32)
                for name, shape in cache.items()
            }
            for _ in self.stack.blocks
        ]


class EncoderDecoder(Decoder):
    """Reads a source once, and writes a target of it."""

    def __init__(self, folder, graphs):
        Decoder.__init__(self, folder, graphs)
        encoder = entry(folder.manifest, "encoder", dict)
        self.encoder_begin = entry(encoder, "begin", str, "the encoder")
        self.encoder = Stack(folder, graphs, entry(encoder, "blocks", list, "the encoder"))
        self.norm = encoder.get("norm")
        self.source_tokens = self.tokens
        if "tokens" in encoder:
            self.source_tokens = Table(folder, encoder["tokens"], "the source's token table")
        self.start = whole_number(folder.manifest, "start", 0)
        self._memory, self._source_mask = None, None
        for i, block in enumerate(self.stack.blocks):
            if "memory" not in block.names:
                raise DamagedBundle(f"block {i} has no graph of the encoder's states.")

    @property
    def stacks(self):
        return [(self.stack, set()), (self.encoder, set())]

    def state_bytes(self, rows, length):
        """And what each block remembers of the source: keys and values, or the states."""
        memory = 2 * 4 * length * whole_number(self.model, "width", 0) * len(self.stack.blocks)
        return Decoder.state_bytes(self, rows, length) + memory

    def read(self, ids, mask):
        """Encode sources, int64 [B, L] each; what is written next is of them."""
        feeds = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_rows": self.source_tokens.rows(ids),
        }
        shared = self.graphs.run(self.encoder_begin, feeds)
        hidden, lead = shared.pop("hidden"), lead_of(ids)
        for group in self.encoder.groups:
            hidden, _ = self.encoder.step(group, hidden, lead, shared)
            self.clock.lap_blocks(group, "encoder_")
        if self.norm is not None:
            hidden = self.graphs.run(self.norm, {"hidden": hidden})["states"]
        feeds = {"hidden": hidden, "lead": lead}
        self._memory = [
            {"memory." + name: array for name, array in block.run(feeds, "memory").items()}
            for block in self.stack.blocks
        ]
        self._source_mask = mask
        self.clock.lap("memory")

    def _begin_feeds(self, ids, mask):
        if self._source_mask is None:
            raise UsageError("nothing was read yet.")
        return {
            "input_ids": ids,
            "before": np.array(self._length, np.int64),
            "encoder_attention_mask": self._source_mask,
            "token_rows": self.tokens.rows(ids),
        }

    def _state(self, i):
        return dict(Decoder._state(self, i), **self._memory[i])
