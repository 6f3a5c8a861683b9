"""What all models of a bundle have: a beginning, blocks, and a table of tokens."""

from jaxkd.device.blocks import Stack
from jaxkd.device.folder import entry
from jaxkd.device.tables import Table


class Layered:
    """Opens the graph before the blocks, the blocks, and the tokens' vectors."""

    def __init__(self, folder, graphs):
        manifest = folder.manifest
        self.graphs, self.model = graphs, entry(manifest, "model", dict)
        self.begin = entry(manifest, "begin", str)
        self.stack = Stack(folder, graphs, entry(manifest, "blocks", list))
        self.tokens = Table(folder, entry(manifest, "tokens", dict), "the token table")
