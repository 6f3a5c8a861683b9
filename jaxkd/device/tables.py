"""Tables as large as the vocabulary: rows of tokens, and logits a slice at a time."""

import numpy as np

from jaxkd.device.errors import DamagedBundle, UsageError
from jaxkd.device.folder import entry, whole_number


class Table:
    """A table [V, E] in a mapped file; its layout is "rows", or "columns" in slices."""

    def __init__(self, folder, described, what):
        self.what = what
        self.tensors = folder.tensors(described)
        self.layout = entry(described, "layout", str, what)
        mapped = self.tensors.map()
        self.scale = mapped.get("scale")
        if self.layout == "rows":
            self._values = [_needed(mapped, "values", what)]
            self.size, self.width = self._values[0].shape
            self.slice = whole_number(described, "slice", 1, what) if "slice" in described else 0
        elif self.layout == "columns":
            self.slice = whole_number(described, "slice", 1, what)
            count = sum(name.startswith("values.") for name in mapped)
            self._values = [_needed(mapped, (f"values.{i}"), what) for i in range(count)]
            if not self._values or self.scale is None:
                raise DamagedBundle(f"{what} has no slices or no scale.")
            self.size = sum(each.shape[1] for each in self._values)
            self.width = self._values[0].shape[0]
            if any(each.shape[1] != self.slice for each in self._values[:-1]):
                raise DamagedBundle(f"{what}: slices are not of {self.slice} tokens.")
        else:
            raise DamagedBundle(f"{what}: layout {self.layout!r}; known: rows, columns.")
        if self.scale is not None and self.scale.shape != (self.size,):
            raise DamagedBundle(f"{what} has {self.size} rows and {self.scale.shape} scales.")

    def rows(self, ids):
        """Vectors of tokens: [...] -> [..., E] float32."""
        flat = ids.reshape(-1)
        if len(flat) and not 0 <= flat.min() <= flat.max() < self.size:
            raise UsageError(
                f"token ids are from {flat.min()} to {flat.max()}; the model knows "
                f"0 to {self.size - 1}."
            )
        if self.layout == "rows":
            chosen = np.asarray(self._values[0][flat], np.float32)
        else:
            chosen = np.empty((len(flat), self.width), np.float32)
            for i, token in enumerate(flat):
                chosen[i] = self._values[token // self.slice][:, token % self.slice]
        if self.scale is not None:
            chosen = chosen * self.scale[flat][:, None]
        return chosen.reshape(ids.shape + (self.width,))

    def slices(self):
        """Feeds of the product, a slice of the vocabulary at a time."""
        for start in range(0, self.size, self.slice):
            end = min(start + self.slice, self.size)
            if self.layout == "rows":
                yield {"values": self._values[0][start:end]}
            else:
                yield {"values": self._values[start // self.slice], "scale": self.scale[start:end]}


class Vocabulary:
    """logits = states @ table.T + bias, for every token of the vocabulary."""

    def __init__(self, folder, graphs, described):
        self.graphs = graphs
        self.table = Table(folder, entry(described, "table", dict), "the vocabulary")
        if not self.table.slice:
            raise DamagedBundle("the vocabulary has no slices.")
        self.product = entry(described, "product", str, "the vocabulary")
        self.bias = None
        if described.get("bias") is not None:
            mapped = folder.tensors(described["bias"]).map()
            self.bias = _needed(mapped, "bias", "the vocabulary")
            if self.bias.shape != (self.table.size,):
                raise DamagedBundle(f"the vocabulary's bias is of shape {self.bias.shape}.")

    def bytes(self, rows):
        """Of the logits, and of what is computed from them: a distribution and its logarithm."""
        return 4 * 4 * rows * self.table.size

    def logits(self, states):
        """[rows, E] -> [rows, V]."""
        logits = np.empty((len(states), self.table.size), np.float32)
        start = 0
        for feeds in self.table.slices():
            feeds["states"] = states
            part = self.graphs.run(self.product, feeds)["logits"]
            logits[:, start : start + part.shape[1]] = part
            start += part.shape[1]
        return logits if self.bias is None else logits + self.bias


def _needed(mapped, name, what):
    if name not in mapped:
        raise DamagedBundle(f"{what} has no tensor {name!r}.")
    return mapped[name]
