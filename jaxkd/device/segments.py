"""Runs a model that was divided: segment after segment, each with its weights as inputs."""

import numpy as np

from jaxkd.device.blocks import Block, Clock
from jaxkd.device.errors import DamagedBundle, UsageError
from jaxkd.device.folder import entry


class Segments:
    """Any ONNX model in pieces; inputs and outputs have the names that the model gave them."""

    def __init__(self, folder, graphs):
        manifest = folder.manifest
        self.inputs = entry(manifest, "inputs", dict)  # name -> numpy's name of the type
        self.outputs = entry(manifest, "outputs", list)
        self.steps = []
        for i, each in enumerate(entry(manifest, "segments", list)):
            what = f"segment {i}"
            block = Block(folder, graphs, each, what)
            described = graphs.described[block.names["graph"]]
            reads = entry(described, "inputs", list, what)
            self.steps.append((block, reads))
        if not self.steps:
            raise DamagedBundle("the manifest has no segments.")
        self.distinct = [block for block, _ in self.steps]

    def __call__(self, feeds, after_block=None):
        """Outputs by name.

        Args:
          feeds: an array for each input.
          after_block: called with the number of each segment that ran.
        """
        missing = sorted(set(self.inputs) - set(feeds))
        unknown = sorted(set(feeds) - set(self.inputs))
        if missing or unknown:
            raise UsageError(
                f"the model reads {', '.join(sorted(self.inputs))}; missing: "
                f"{', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}."
            )
        values = {name: np.asarray(feeds[name], kind) for name, kind in self.inputs.items()}
        clock = Clock()
        for i, (block, reads) in enumerate(self.steps):
            if i + 1 < len(self.steps):
                self.steps[i + 1][0].prefetch()
            absent = [name for name in reads if name not in values]
            if absent:
                raise DamagedBundle(f"segment {i} reads {absent[0]!r}, which nothing makes.")
            values.update(block.run({name: values[name] for name in reads}))
            clock.lap(f"segment_{i:03d}")
            if after_block is not None:
                after_block(i)
            # What no later segment reads is let go of.
            needed = {name for _, later in self.steps[i + 1 :] for name in later}
            values = {n: value for n, value in values.items() if n in needed or n in self.outputs}
        self.parts = clock.parts
        return {name: values[name] for name in self.outputs}
