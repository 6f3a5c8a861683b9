"""Runs blocks under a plan of residency: one session of a small graph, weights as its inputs."""

import time

import numpy as np

from jaxkd.device.errors import DamagedBundle, NoMemory
from jaxkd.device.folder import entry
from jaxkd.device.onnx_bytes import Piece, inputs_of, joined, with_weights
from jaxkd.device.residency import MAPPED, RESIDENT, STREAMED

# Bytes of weights below which a graph's work is less than waking threads for it.
SMALL = 10**6


class Graphs:
    """The sessions of a bundle's graphs, each made when it is first run.

    `bytes` is by graph, of the largest weights of blocks that it is run with.
    """

    def __init__(self, folder, threads=0):
        self.folder = folder
        self.described = entry(folder.manifest, "graphs", dict)
        self.threads = threads
        self.bytes = {}
        self._sessions = {}

    def weights_of(self, name):
        """Names of the weights that a graph takes as inputs."""
        return entry(self._described(name), "weights", list, f"graph {name!r}")

    def run(self, name, feeds):
        """Outputs by name."""
        if name not in self._sessions:
            self._sessions[name] = self.session(name)
        return run(self._sessions[name], feeds, name)

    def session(self, name, weights=None):
        """A new session; `weights` become constants of it."""
        described = self._described(name)
        large = bool(described["weights"]) and self.bytes.get(name, SMALL) >= SMALL

        def model():
            content = self._content(name)
            return content if weights is None else with_weights(content, weights)

        return self._session(name, model, self._options(large))

    def joined_session(self, names, weights, inputs):
        """One session of several graphs, each reading the hidden states of the one before.

        None if they cannot be one graph.

        Args:
          names: of the graphs.
          weights: of each, arrays by name.
          inputs: of each, what its inputs are called in the whole; others get a number in front.
        """
        pieces = [
            Piece(self._content(name), own, renamed)
            for name, own, renamed in zip(names, weights, inputs)
        ]
        try:
            model = joined(pieces, reads="hidden", makes="new_hidden")
        except ValueError:
            return None
        options = self._options(max(self.bytes.get(name, SMALL) for name in names) >= SMALL)
        if not any("past." in name for piece in pieces for name in inputs_of(piece.model)):
            # The arena keeps little more than the activations of a block, and they stay in the
            # processor's caches. Caches of earlier tokens grow, and it would keep every size.
            options.enable_cpu_mem_arena = options.enable_mem_pattern = True
        return self._session(" + ".join(names), lambda: model, options)

    def _content(self, name):
        return self.folder.read(entry(self._described(name), "file", str, f"graph {name!r}"))

    def _session(self, what, model, options):
        import onnxruntime

        try:
            session = onnxruntime.InferenceSession(
                model(), options, providers=["CPUExecutionProvider"]
            )
        except DamagedBundle:
            raise
        except Exception as error:  # onnxruntime has classes of its own for each kind
            refuse_memory(error)
            raise DamagedBundle(
                f"onnxruntime {onnxruntime.__version__} does not open the graph {what!r}: {error}"
            ) from error
        # The session would keep the bytes it was made of: a second copy of a resident block.
        session._model_bytes = None
        return session

    def _options(self, large):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors: its warnings are about the machine
        options.intra_op_num_threads = self.threads if large else 1
        options.inter_op_num_threads = 1
        # Memory goes back to the system after each run; the arena would keep the most ever used.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        # Waiting threads spin while the session runs, and not after: each block's session has its
        # own, which would take the cores from the next block. Before 1.12 they would spin on.
        spin = version(onnxruntime.__version__) >= (1, 12)
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
        if spin:
            options.add_session_config_entry("session.force_spinning_stop", "1")
        return options

    def _described(self, name):
        if not isinstance(name, str) or name not in self.described:
            raise DamagedBundle(f"the manifest names a graph {name!r} that it does not describe.")
        return self.described[name]


def version(text):
    """The first two numbers of a version.

    >>> version("1.9.0") < version("1.12.1") < version("1.32.0.dev1")
    True
    """
    return tuple(int(part) for part in text.split(".")[:2])


class Outputs(dict):
    """A graph's outputs by name."""

    def __missing__(self, name):
        raise DamagedBundle(f"a graph has no output {name!r}; it has {', '.join(sorted(self))}.")


def run(session, feeds, name):
    """A session's outputs by name."""
    names = [value.name for value in session.get_outputs()]
    try:
        return Outputs(zip(names, session.run(names, feeds)))
    except Exception as error:
        refuse_memory(error)
        raise DamagedBundle(f"the graph {name!r} does not run: {error}") from error


def refuse_memory(error):
    """Raise NoMemory if that is what onnxruntime says, in one of its ways."""
    text = str(error)
    if isinstance(error, MemoryError) or any(
        each in text for each in ("bad_alloc", "Failed to allocate", "bad allocation")
    ):
        raise NoMemory(
            "onnxruntime did not get the memory it needs: give a smaller --budget-mb or --window, "
            "or use int8 weights."
        ) from error


class Block:
    """One block: its graphs, and its weights wherever the plan has them."""

    def __init__(self, folder, graphs, described, what):
        self.graphs = graphs
        self.names = {"graph": entry(described, "graph", str, what)}
        if "memory" in described:
            self.names["memory"] = entry(described, "memory", str, what)
        self.inputs = entry(described, "inputs", dict, what)
        self.tensors = folder.tensors(entry(described, "weights", (dict, list), what))
        self.needed = {}
        for key, name in self.names.items():
            self.needed[key] = graphs.weights_of(name)
            graphs.bytes[name] = max(graphs.bytes.get(name, 0), self.tensors.bytes)
            missing = [each for each in self.needed[key] if each not in self.tensors.described]
            if missing:
                raise DamagedBundle("{} lacks the weights {}.".format(what, ", ".join(missing[:3])))
        self.tier = STREAMED
        self._mapped = None
        self._sessions = {}

    def place(self, tier, joined=False):
        """Bring the weights where `tier` says.

        Args:
          joined: whether the graph that `step` runs is in a session with other blocks'.
        """
        self.tier, self._mapped, self._sessions = tier, None, {}
        if tier == MAPPED:
            self._mapped = self.tensors.map()
        elif tier == RESIDENT:
            for key, name in self.names.items():
                if key != "graph" or not joined:
                    self._sessions[key] = self.graphs.session(name, self.weights(key))

    def weights(self, key="graph"):
        """Of one of the graphs, by name; views of the file."""
        mapped = self._mapped if self.tier == MAPPED else self.tensors.map()
        return {each: mapped[each] for each in self.needed[key]}

    def run(self, feeds, key="graph"):
        """Outputs by name; `key` is "graph" or "memory"."""
        if self.tier == RESIDENT:
            return run(self._sessions[key], feeds, self.names[key])
        feeds = dict(feeds)
        feeds.update(self.weights(key))
        return self.graphs.run(self.names[key], feeds)

    def prefetch(self):
        """Have the file read while another block runs."""
        if self.tier != RESIDENT:
            self.tensors.prefetch()


class Stack:
    """A list of blocks; one that is used several times is one.

    `groups` are ranges of them that are run at once: a block each, until `join` makes it fewer.
    """

    def __init__(self, folder, graphs, described):
        self.graphs, self.blocks, known = graphs, [], {}
        for i, each in enumerate(described):
            what = f"block {i}"
            if not isinstance(each, dict):
                raise DamagedBundle(f"{what} is no object of the manifest.")
            file = entry(entry(each, "weights", dict, what), "file", str, what)
            if file not in known:
                known[file] = Block(folder, graphs, each, what)
            self.blocks.append(known[file])
        if not self.blocks:
            raise DamagedBundle("the manifest has no blocks.")
        self.distinct = list(known.values())
        self.groups = [range(i, i + 1) for i in range(len(self.blocks))]
        self._sessions = {}  # by a group's first block

    def join(self, groups):
        """Make one session of each group's blocks, where that is possible.

        Returns the blocks that are in such a session.
        """
        self.groups, self._sessions, inside = [], {}, set()
        for group in groups:
            blocks = [self.blocks[i] for i in group]
            session = None
            if len(group) > 1:
                session = self.graphs.joined_session(
                    [block.names["graph"] for block in blocks],
                    [block.weights() for block in blocks],
                    [dict(block.inputs, lead="lead") for block in blocks],
                )
            if session is None:
                self.groups += [range(i, i + 1) for i in group]
            else:
                self.groups.append(group)
                self._sessions[group[0]] = session
                inside.update(blocks)
        return inside

    def step(self, group, hidden, lead, shared, more=None):
        """The blocks of one of `groups` on hidden states [B L, D].

        Args:
          shared: what came before the blocks.
          more: arrays that a block reads besides, by the block's number.
        Returns:
          Of the last block hidden states, and of each block its other outputs.
        """
        first, more = group[0], more or {}
        if first in self._sessions:
            return self._joined(group, hidden, lead, shared, more)
        block = self.blocks[first]
        feeds = {"hidden": hidden, "lead": lead}
        for name, source in block.inputs.items():
            feeds[name] = self._shared(shared, first, source)
        feeds.update(more.get(first, {}))
        if first + 1 < len(self.blocks) and self.blocks[first + 1] is not block:
            self.blocks[first + 1].prefetch()
        outputs = block.run(feeds)
        hidden = outputs["new_hidden"]
        del outputs["new_hidden"]
        return hidden, [outputs]

    def _joined(self, group, hidden, lead, shared, more):
        feeds = {"hidden": hidden, "lead": lead}
        for number, i in enumerate(group):
            for source in self.blocks[i].inputs.values():
                feeds[source] = self._shared(shared, i, source)
            feeds.update((f"{number}/{name}", array) for name, array in more.get(i, {}).items())
        name = f"blocks {group[0]} to {group[-1]}"
        outputs = run(self._sessions[group[0]], feeds, name)
        own = [Outputs() for _ in group]
        for name, array in outputs.items():
            number, slash, short = name.partition("/")
            if slash:
                own[int(number)][short] = array
        return outputs["new_hidden"], own

    def _shared(self, shared, i, source):
        if source not in shared:
            raise DamagedBundle(f"block {i} takes {source!r}, which nothing makes.")
        return shared[source]


class Clock:
    """Milliseconds of each part of a run, and what is done after each."""

    def __init__(self):
        self.parts = []  # (name, milliseconds)
        self._last = self.start = time.perf_counter()

    def lap(self, *names):
        """The time since the last lap; parts that ran in one session share it equally."""
        now = time.perf_counter()
        each = 1000 * (now - self._last) / len(names)
        self.parts.extend((name, each) for name in names)
        self._last = now

    def lap_blocks(self, group, before=""):
        """The same of blocks by their numbers."""
        self.lap(*(f"{before}block_{i:02d}" for i in group))

    @property
    def milliseconds(self):
        return 1000 * (time.perf_counter() - self.start)


def lead_of(ids):
    """Rows and columns of a batch, as graphs take them."""
    return np.array(ids.shape[:2], np.int64)
