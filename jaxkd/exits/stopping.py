"""Optimal stopping on measured latency: a table of stop or go on, from a calibration split.

Going on from exit i to i + 1 costs `price` times the milliseconds of the block and its head, and
may bring a better answer. Rows move between a few states (rules.states); how good an answer is in
each, and how rows move, is counted on the calibration split. Backward induction gives the policy
that is best for that chain: V_i(s) = max(A_i(s), E[V_i+1 | s] - price * t_i+1).
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxkd.exits.rules import OptimalStopping, Rule, exits_under, measured, states


@dataclasses.dataclass(frozen=True)
class Chain:
    """How good answers are and how rows move, counted on a calibration split.

    `quality[i, s]` is the mean of answers in state s at exit i; `moves[i, s, z]` the share of rows
    in state s at exit i that are in z at exit i + 1; `share[i, s]` that of all rows in s at exit i.
    """

    quality: Float[np.ndarray, "N S"]
    moves: Float[np.ndarray, "N-1 S S"]
    share: Float[np.ndarray, "N S"]


PRIOR_ROWS = 5.0  # rows of the exit's average that each state is counted with
FOLDS = 5  # parts of the calibration rows, each scored by a table of the others


def count_chain(
    states: Int[np.ndarray, "rows N"],
    quality: Float[np.ndarray, "rows N"],
    size: int,
    prior: float = 0.0,
) -> Chain:
    """The chain that rows of a calibration split show.

    A state that no row was in has the exit's mean quality and the moves of all rows: what is best
    on the whole decides what is best there. With `prior` every state is counted as if it had that
    many rows more, of the exit's mean quality and moves: few rows say little.

    Args:
      states: each row's state at each exit, 0 to size - 1.
      quality: of the answer each exit would give, as `qualities` gives it.
    """
    rows, exits = states.shape
    counts = np.stack([np.bincount(states[:, i], minlength=size) for i in range(exits)])
    share = counts / rows
    means = np.empty((exits, size))
    moves = np.empty((exits - 1, size, size))
    for i in range(exits):
        sums = np.bincount(states[:, i], weights=quality[:, i], minlength=size)
        seen = counts[i] > 0
        known = np.maximum(counts[i] + prior, 1e-9)
        mean = quality[:, i].mean()
        means[i] = np.where(seen | (prior > 0), (sums + prior * mean) / known, mean)
        if i + 1 < exits:
            pairs = np.zeros((size, size))
            np.add.at(pairs, (states[:, i], states[:, i + 1]), 1.0)
            everywhere = np.broadcast_to(share[i + 1], (size, size))
            moves[i] = np.where(
                (seen | (prior > 0))[:, None],
                (pairs + prior * everywhere) / known[:, None],
                everywhere,
            )
    return Chain(means, moves, share)


@dataclasses.dataclass(frozen=True)
class Policy:
    """A table of stops, and what the chain says it achieves."""

    stop: Bool[np.ndarray, "N S"]
    quality: float  # expected, of the answers
    milliseconds: float  # expected, a row
    exits: Float[np.ndarray, " N"]  # share of rows that stop at each exit


def solve(
    chain: Chain,
    milliseconds: Float[np.ndarray, " N"],
    price: float,
    *,
    deadline: float = float("inf"),
    slowest: Float[np.ndarray, " N"] | None = None,
) -> Policy:
    """The best policy of a chain: it maximises expected quality minus price times time.

    Args:
      milliseconds: of each exit's block and head; the first with the embedding.
      price: quality that a millisecond is worth.
      deadline: milliseconds in which every row must be answered.
      slowest: the longest time until each exit has answered, for the deadline; None: the sum of
        `milliseconds`.
    Raises:
      ValueError: for a negative price, or a deadline before the first exit.
    """
    exits, size = chain.quality.shape
    if not price >= 0:
        raise ValueError(f"price is {price}; it is 0 or more: quality that a millisecond is worth.")
    spent = np.cumsum(milliseconds) if slowest is None else slowest
    if spent[0] > deadline:
        raise ValueError(
            f"deadline is {deadline:g} ms; the first exit may take {spent[0]:.3g} ms to answer."
        )
    stop = np.ones((exits, size), bool)
    value = chain.quality[-1].copy()
    for i in reversed(range(exits - 1)):
        further = chain.moves[i] @ value - price * milliseconds[i + 1]
        stop[i] = chain.quality[i] >= further
        if spent[i + 1] > deadline:
            stop[i] = True
        value = np.where(stop[i], chain.quality[i], further)
    return evaluate(chain, stop, milliseconds)


def evaluate(
    chain: Chain, stop: Bool[np.ndarray, "N S"], milliseconds: Float[np.ndarray, " N"]
) -> Policy:
    """What a table of stops achieves on a chain; rows at the last exit stop."""
    stop = stop.copy()
    stop[-1] = True
    running, spent, quality, time, exits = chain.share[0].copy(), 0.0, 0.0, 0.0, []
    for i, stops in enumerate(stop):
        spent += milliseconds[i]
        stopping = running * stops
        quality += float(stopping @ chain.quality[i])
        time += float(stopping.sum()) * spent
        exits.append(float(stopping.sum()))
        if i + 1 < len(stop):
            running = (running * ~stops) @ chain.moves[i]
    return Policy(stop, quality, time, np.array(exits))


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What a calibration split says: bins, moves between them, and what answers are worth."""

    edges: Float[np.ndarray, "N edges"]
    chain: Chain
    tolerance: float
    answers: Float[np.ndarray, "C C"]  # quality of [true class, predicted class]

    def rule(self, policy: Policy) -> OptimalStopping:
        """The rule that reads this policy's table."""
        return OptimalStopping(table=policy.stop, edges=self.edges, tolerance=self.tolerance)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it by name, for a file."""
        chain = {each.name: getattr(self.chain, each.name) for each in dataclasses.fields(Chain)}
        own = {"edges": self.edges, "tolerance": np.array(self.tolerance), "answers": self.answers}
        return own | chain

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Calibration":
        """What `arrays` gave."""
        chain = Chain(**{each.name: arrays[each.name] for each in dataclasses.fields(Chain)})
        return cls(arrays["edges"], chain, float(arrays["tolerance"]), arrays["answers"])


def calibrate(
    logits: Float[np.ndarray, "rows N C"],
    labels: Float[np.ndarray, " rows"] | Int[np.ndarray, " rows"],
    *,
    bins: int = 8,
    tolerance: float = 0.1,
    prior: float = PRIOR_ROWS,
    answers: Float[np.ndarray, "C C"] | None = None,
) -> Calibration:
    """Bins and a chain from what every exit predicts for the rows of a calibration split.

    The bins of an exit hold equally many rows, by what `rules.measured` gives.

    Args:
      answers: as for `qualities`.
    Raises:
      ValueError: as `check_rows`.
    """
    rows, exits, _ = logits.shape
    size = 2 * bins  # each bin, agreeing with the exit before or not
    check_rows(rows, bins, parts=1)
    shares = np.linspace(0, 1, bins + 1)[1:-1]
    edges = np.zeros((exits, bins - 1))
    numbers = np.zeros((rows, exits), np.int64)
    previous = np.zeros_like(logits[:, 0])
    for i in range(exits):
        now = logits[:, i]
        edges[i] = np.quantile(measured(jnp.asarray(now), jnp.asarray(previous)), shares)
        numbers[:, i] = states(
            jnp.asarray(now), jnp.asarray(previous), jnp.asarray(edges[i]), i, tolerance
        )
        previous = now
    answers = np.eye(logits.shape[2]) if answers is None else answers
    chain = count_chain(numbers, qualities(logits, labels, answers), size, prior)
    return Calibration(edges, chain, tolerance, answers)


def qualities(
    logits: Float[np.ndarray, "rows N C"],
    labels: Float[np.ndarray, " rows"] | Int[np.ndarray, " rows"],
    answers: Float[np.ndarray, "C C"] | None = None,
) -> Float[np.ndarray, "rows N"]:
    """How good each answer is: of a class what `answers` says, of a number minus its error.

    Args:
      answers: the quality of [true class, predicted class]; None: 1 where right, 0 where wrong.
        jaxkd.evaluate.exits.answer_quality makes it of a metric.
    """
    if logits.shape[2] == 1:
        return -np.abs(logits[..., 0] - labels[:, None]).astype(float)
    answers = np.eye(logits.shape[2]) if answers is None else answers
    return answers[labels.astype(int)[:, None], logits.argmax(2)]


def check_rows(rows: int, bins: int, parts: int = FOLDS) -> None:
    """Raise ValueError unless there are twenty rows for each bin, when one of `parts` is left out.

    A bin has two states, so that these are ten a state on average.
    """
    needed = 20 * max(bins, 1) * parts // max(parts - 1, 1)
    if bins < 1 or rows < needed:
        possible = bins * rows // max(needed, 1)
        raise ValueError(
            f"{rows} rows to calibrate {bins} bins: at least {needed} are needed for {bins}"
            + (f", or at most {possible} bins." if possible else ".")
        )


def cross_fitted(
    logits: Float[np.ndarray, "rows N C"],
    labels: Float[np.ndarray, " rows"] | Int[np.ndarray, " rows"],
    calibrated: Calibration,
    rule_of: Callable[[Calibration], Rule],
) -> Int[np.ndarray, " rows"]:
    """Each row's exit under the rule of a calibration that has not seen it.

    Every FOLDS-th row is left out in turn. On the rows that a table was made of it looks better
    than elsewhere.

    Args:
      calibrated: of all rows; its number of bins, tolerance and worth of answers are used.
    """
    exits = np.zeros(len(logits), np.int64)
    number = np.arange(len(logits)) % FOLDS
    for fold in range(FOLDS):
        others, own = number != fold, number == fold
        made = calibrate(
            logits[others], labels[others],
            bins=calibrated.edges.shape[1] + 1, tolerance=calibrated.tolerance,
            answers=calibrated.answers,
        )  # fmt: skip
        exits[own] = exits_under(rule_of(made), logits[own])
    return exits
