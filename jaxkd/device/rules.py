"""When a row has seen enough: what jaxkd's rules decide, in numpy, over the logits of its exits.

Sources: Zhou et al. (2020), arXiv:2006.04152 (patience); Xin et al. (2020), arXiv:2004.12993
(entropy). Optimal stopping is backward induction over a chain counted on a calibration split.
"""

import numpy as np

from jaxkd.device.errors import DamagedBundle, UsageError
from jaxkd.device.folder import entry


class Rule:
    """Called at exit 0, 1, ... in order, with the logits of the rows that still run."""

    classes_only = False

    def check(self, labels, exits):
        """Raise UsageError if the rule cannot be used with these exits."""
        if labels == 1 and self.classes_only:
            raise UsageError(
                f"{type(self).__name__} looks at probabilities of classes, and this model predicts "
                "one number. Rules for it: patience, optimal."
            )

    def start(self, rows):
        """Before the first exit; returns what `decide` is given."""
        return {"count": np.zeros(rows, int), "previous": None}

    def decide(self, memory, logits, number):
        """Which rows stop at exit `number`; changes `memory`."""
        stop = self.stops(memory, logits, number)
        memory["previous"] = logits
        return stop

    def keep(self, memory, rows):
        """The memory of these rows alone."""
        return {name: None if array is None else array[rows] for name, array in memory.items()}


class Never(Rule):
    """All blocks run."""

    def stops(self, memory, logits, number):
        return np.zeros(len(logits), bool)


class Patience(Rule):
    """Stop once `patience` exits in a row agreed with the exit before each."""

    def __init__(self, patience, tolerance=0.1):
        self.patience, self.tolerance = patience, tolerance

    def check(self, labels, exits):
        Rule.check(self, labels, exits)
        if not 1 <= self.patience < exits:
            raise UsageError(
                f"patience is {self.patience}; with {exits} exits it is 1 to {exits - 1}."
            )

    def stops(self, memory, logits, number):
        agrees = agree(memory["previous"], logits, self.tolerance)
        memory["count"] = np.where(agrees, memory["count"] + 1, 0)
        return memory["count"] >= self.patience


class Entropy(Rule):
    """Stop at an exit whose distribution has less entropy than `threshold`, in nats."""

    classes_only = True

    def __init__(self, threshold):
        self.threshold = threshold

    def check(self, labels, exits):
        Rule.check(self, labels, exits)
        if not self.threshold >= 0:
            raise UsageError(f"a threshold of entropy is 0 or more, not {self.threshold!r}.")

    def stops(self, memory, logits, number):
        log_probs = log_softmax(logits)
        return -(np.exp(log_probs) * log_probs).sum(-1) < self.threshold


class Confidence(Rule):
    """Stop at an exit that gives some class a probability of `threshold` or more."""

    classes_only = True

    def __init__(self, threshold):
        self.threshold = threshold

    def check(self, labels, exits):
        Rule.check(self, labels, exits)
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"a threshold of confidence is 0 to 1, not {self.threshold!r}.")

    def stops(self, memory, logits, number):
        return confidence(logits) >= self.threshold


class OptimalStopping(Rule):
    """Stop where the table says that going on costs more than it brings."""

    def __init__(self, table, edges, tolerance):
        self.table, self.edges, self.tolerance = table, edges, tolerance

    def check(self, labels, exits):
        Rule.check(self, labels, exits)
        if len(self.table) != exits:
            raise UsageError(
                f"the calibration is of {len(self.table)} exits, and the model has {exits}."
            )

    def stops(self, memory, logits, number):
        previous = memory["previous"]
        if logits.shape[1] == 1:
            seen = -np.abs(logits[:, 0] - (0 if previous is None else previous[:, 0]))
        elif logits.shape[1] == 2:
            seen = np.exp(log_softmax(logits))[:, 1]  # says which class is predicted as well
        else:
            seen = confidence(logits)
        edges = np.asarray(self.edges[number], seen.dtype)
        state = np.searchsorted(edges, seen, side="right")
        state = state + agree(previous, logits, self.tolerance) * (len(edges) + 1)
        return self.table[number][state]


def _numbers(policies, name):
    try:
        return np.array(entry(policies, name, list, "policies"), float)
    except (ValueError, TypeError) as error:
        raise DamagedBundle(f"policies: {name} is no array of numbers ({error}).") from error


def agree(previous, logits, tolerance):
    """Whether two exits predict the same class, or numbers closer than `tolerance`."""
    if previous is None:
        return np.zeros(len(logits), bool)
    if logits.shape[1] == 1:
        return np.abs(logits - previous)[:, 0] < np.float32(tolerance)
    return logits.argmax(1) == previous.argmax(1)


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def confidence(logits):
    """The largest probability of a class."""
    return np.exp(log_softmax(logits)).max(-1)


def optimal(policies, price, milliseconds=None, deadline=None):
    """The rule of a price of time.

    Args:
      policies: of the manifest: edges, tolerance, quality [N, S], moves [N - 1, S, S], and
        milliseconds and slowest [N] of the machine that calibrated.
      price: quality that the time of all blocks is worth, as in jaxkd's reports.
      milliseconds: of each exit on this machine; None: the calibrating machine's.
      deadline: milliseconds in which every row must be answered, by the slowest seen.
    """
    if not price >= 0:
        raise UsageError(
            f"lambda is {price!r}; it is 0 or more: quality that the time of all blocks is worth."
        )
    names = ("quality", "moves", "edges", "milliseconds", "slowest")
    quality, moves, edges, own_times, own_slowest = (_numbers(policies, each) for each in names)
    exits, states = quality.shape if quality.ndim == 2 else (0, 0)
    needed = {
        "moves": (moves, (exits - 1, states, states)),
        "edges": (edges, (exits, states // 2 - 1)),
        "milliseconds": (own_times, (exits,)),
        "slowest": (own_slowest, (exits,)),
    }
    for name, (array, shape) in needed.items():
        if array.shape != shape:
            raise DamagedBundle(
                f"policies: {name} is of shape {array.shape}, and quality of {quality.shape} needs "
                f"{shape}."
            )
    times, slowest = own_times, own_slowest
    if milliseconds is not None:
        times = np.array(milliseconds, float)
        slowest = np.cumsum(times)
    if deadline is not None and slowest[0] > deadline:
        raise UsageError(
            f"the first exit may take {slowest[0]:.3g} ms to answer, the deadline is "
            f"{deadline:g} ms."
        )
    shares = times / times.sum()
    stop = np.ones(quality.shape, bool)
    value = quality[-1]
    for i in reversed(range(len(quality) - 1)):
        further = moves[i].dot(value) - price * shares[i + 1]
        stop[i] = quality[i] >= further
        if deadline is not None and slowest[i + 1] > deadline:
            stop[i] = True
        value = np.where(stop[i], quality[i], further)
    return OptimalStopping(stop, edges, float(entry(policies, "tolerance", (int, float))))
