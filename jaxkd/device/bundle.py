"""A bundle opened: checked, placed in memory under a budget, ready to answer."""

import zipfile

import numpy as np

from jaxkd.device import memory
from jaxkd.device.blocks import Graphs
from jaxkd.device.decoding import TOKENS
from jaxkd.device.encoder import OnePass
from jaxkd.device.errors import DamagedBundle, DifferentAnswers
from jaxkd.device.folder import Folder, entry, whole_number
from jaxkd.device.residency import (
    COST,
    FLOAT16_COST,
    STREAMED,
    groups,
    plan,
    used_bytes,
    working_bytes,
)
from jaxkd.device.segments import Segments
from jaxkd.device.writer import Decoder, EncoderDecoder

SHARE = 0.8  # of the memory that is available, without a budget


class Bundle:
    """Opens a folder; `model` is a OnePass, Decoder or EncoderDecoder.

    Args:
      budget: bytes that this may add to the process; None: most of what the machine has free.
      window: hold one layer in memory at a time, whatever the budget.
      rows, length: the largest batch that is expected, for what activations take.
      beam, tokens: of models that write, beams and tokens that are expected; None: the manifest's.
    Raises:
      DamagedBundle: for a folder that is not what was written.
      NoMemory: if not one layer fits.
    """

    def __init__(
        self, path, budget=None, threads=0, rows=1, length=128, window=False, beam=None, tokens=None
    ):
        self.folder = Folder(path)
        self.manifest = self.folder.manifest
        self.graphs = Graphs(self.folder, threads)
        kind = entry(self.manifest, "kind", str)
        if kind == "encoder-decoder":
            self.model = EncoderDecoder(self.folder, self.graphs)
        elif kind == "decoder" and "vocabulary" in self.manifest:
            self.model = Decoder(self.folder, self.graphs)
        elif kind in ("encoder", "decoder"):
            self.model = OnePass(self.folder, self.graphs)
        elif kind == "segments":
            self.model = Segments(self.folder, self.graphs)
        else:
            raise DamagedBundle(f"the manifest's kind is {kind!r}.")
        self.divided = kind == "segments"
        self.blocks = list((self.model if self.divided else self.model.stack).distinct)
        if kind == "encoder-decoder":
            self.blocks += self.model.encoder.distinct
        self.writes = kind == "encoder-decoder" or isinstance(self.model, Decoder)
        beams = rows
        if self.writes:  # one text at a time, several beams of it
            settings = {"width": 1, "max_tokens": TOKENS}
            settings.update(entry(self.manifest, "generation", dict))
            beams, rows = beam or whole_number(settings, "width", 1, "generation"), 1
            length += tokens or whole_number(settings, "max_tokens", 1, "generation")
            length = min(length, self.model.max_length)
        self.tiers = self._place(budget, rows, beams, length, window)

    def _place(self, budget, rows, beams, length, window):
        sizes = [block.tensors.bytes for block in self.blocks]
        if budget is None:
            free = memory.available()
            budget = None if free is None else SHARE * free
        shape = entry(self.manifest, "model", dict)
        width, inner, heads, cast = (
            whole_number(shape, name, 0, "the model") if not self.divided else 0
            for name in ("width", "inner", "heads", "largest_cast")
        )
        working = working_bytes(width, inner, heads, rows, length, cast)
        if not self.divided:
            working += self.model.state_bytes(beams, length)
        cost = FLOAT16_COST if self.manifest.get("weights") == "float16" else COST
        tiers = [STREAMED] * len(sizes) if window else plan(sizes, budget, working, cost)
        room = None if budget is None else budget - used_bytes(sizes, tiers, working, cost)
        self.place(tiers, room, cost)
        return tiers

    def place(self, tiers, room=None, cost=COST):
        """Bring each of `blocks` where its tier says; resident ones share sessions.

        Args:
          room, cost: as of `residency.groups`.
        """
        tier_of, joined = dict(zip(self.blocks, tiers)), set()
        stacks = () if self.divided else self.model.stacks
        for block in self.blocks:  # what was there before gives its memory back first
            block.place(STREAMED)
        for stack, _ in stacks:
            stack.join([])
        for stack, cuts in stacks:
            own = stack.blocks
            sizes = [block.tensors.bytes for block in own]
            joined |= stack.join(
                groups(own, sizes, [tier_of[block] for block in own], cuts, room, cost)
            )
        for block, tier in zip(self.blocks, tiers):
            block.place(tier, block in joined)
        memory.trim()
        memory.keep_freed()

    def reference_difference(self):
        """The largest difference from what jaxkd computed when the bundle was written."""
        arrays = self._reference()
        if self.divided:
            return self._segments_difference(arrays)
        largest = 0.0
        for name, logits in self.answers(arrays).items():
            if "logits." + name not in arrays:
                raise DamagedBundle(f"the reference has no logits of {name!r}.")
            expected = arrays["logits." + name]
            if logits.shape != expected.shape:
                raise DamagedBundle(
                    f"the reference has logits of {expected.shape}, the model makes {logits.shape}."
                )
            seen = arrays["mask"].astype(bool)
            if self.writes and "decoder_tokens" in arrays:
                seen = np.ones(logits.shape[:2], bool)
            by_token = self.manifest["model"].get("head") != "multi_task"
            if by_token and logits.shape[:2] == seen.shape and logits.ndim == 3:
                logits, expected = logits[seen], expected[seen]  # padding's logits mean nothing
            largest = worse(largest, np.abs(logits - expected))
        return largest

    def _reference(self):
        described = entry(self.manifest, "reference", dict)
        file = self.folder.file(entry(described, "file", str))
        try:
            with np.load(file) as arrays:
                arrays = {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DamagedBundle(f"{file} cannot be read: {error}.") from error
        missing = {"tokens", "mask"} - set(arrays)
        if missing and not self.divided:
            raise DamagedBundle(f"{file} has no array {sorted(missing)[0]!r}.")
        return arrays

    def _segments_difference(self, arrays):
        """The same of a divided model, relative to its outputs where they are above 1."""
        feeds = {name[6:]: array for name, array in arrays.items() if name.startswith("input.")}
        largest = 0.0
        for name, output in self.model(feeds).items():
            expected = arrays.get("output." + name)
            if expected is None or expected.shape != output.shape:
                raise DamagedBundle(f"the reference has no output {name!r} of that shape.")
            if output.size:
                apart = np.abs(np.asarray(output, float) - np.asarray(expected, float))
                largest = worse(largest, apart / max(1.0, float(np.abs(expected).max())))
        return largest

    def check_reference(self):
        """Raise DifferentAnswers if the difference is above what the manifest allows."""
        allowed = float(entry(entry(self.manifest, "reference", dict), "tolerance", (int, float)))
        difference = self.reference_difference()
        if not difference <= allowed:
            raise DifferentAnswers(
                f"this machine's answers differ by {difference:.3g} from those of jaxkd, allowed "
                f"is {allowed:.3g}: do not use the bundle on it."
            )
        return difference, allowed

    def answers(self, arrays):
        """Logits of every head for rows of tokens, by the head's name."""
        ids, mask = arrays["tokens"], arrays["mask"]
        if self.writes:
            if "decoder_tokens" in arrays:
                self.model.read(ids, mask)
                ids, mask = arrays["decoder_tokens"], np.ones_like(arrays["decoder_tokens"])
            return {"head": self.model.logits(ids, mask)}
        return self.model.of_every_head(ids, mask, arrays.get("segments"))


def worse(largest, differences):
    """The largest difference so far; infinity where one is no number."""
    if not np.isfinite(differences).all():
        return float("inf")
    return max(largest, float(differences.max()))
