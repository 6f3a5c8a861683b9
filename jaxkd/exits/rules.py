"""When a row has seen enough: rules over the logits of its exits so far.

A rule is a pure function of what an exit predicts and of a `History`, which it carries from exit to
exit. The last exit always answers, whatever the rule says.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxkd.core.ranges import check as check_ranges
from jaxkd.core.ranges import field


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class History:
    """What rules remember of each row: the logits of the exit before, and a count of exits."""

    previous: Float[Array, "B C"]
    count: Int[Array, " B"]

    @classmethod
    def start(cls, rows: int, labels: int) -> "History":
        """Before the first exit."""
        return cls(jnp.zeros((rows, labels), jnp.float32), jnp.zeros(rows, jnp.int32))


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule; `decide` is called for exit 0, 1, ... in order.

    A rule is a pytree whose leaves are its fields, so that a jitted function that takes a rule is
    compiled once for all thresholds.

    `classes_only`: it has no meaning for a regression, whose exits have one output.
    """

    classes_only: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_pytree_node(cls, _fields_of, functools.partial(_rule_of, cls))

    def check(self, labels: int, exits: int) -> None:
        """Raise ValueError if the rule cannot be used with these exits.

        Args:
          labels: outputs of an exit; 1 is a regression.
          exits: their number, the last one included.
        """
        check_ranges(self, type(self).__name__.lower())
        if labels == 1 and self.classes_only:
            raise ValueError(
                f"{type(self).__name__} looks at probabilities of classes, and the model predicts "
                "one number. Rules for a regression: Patience, OptimalStopping."
            )

    def decide(
        self, history: History, logits: Float[Array, "B C"], number: Int[Array, ""] | int
    ) -> tuple[History, Bool[Array, " B"]]:
        """The history with this exit, and which rows stop here."""
        count = self.counted(history, logits.astype(jnp.float32), number)
        stop = self.stops(count, history, logits.astype(jnp.float32), number)
        return History(logits.astype(jnp.float32), count), stop

    def counted(self, history: History, logits: Any, number: Any) -> Int[Array, " B"]:
        """The new count of each row."""
        return history.count

    def stops(self, count: Any, history: History, logits: Any, number: Any) -> Bool[Array, " B"]:
        """Which rows stop at this exit; every rule has its own."""
        raise NotImplementedError


def _fields_of(rule: Rule) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    names = tuple(each.name for each in dataclasses.fields(rule))
    return tuple(getattr(rule, name) for name in names), names


def _rule_of(cls: type[Rule], names: tuple[str, ...], leaves: tuple[Any, ...]) -> Rule:
    # Not by the constructor, whose annotations are of numbers and not of traced values.
    rule = object.__new__(cls)
    for name, leaf in zip(names, leaves, strict=True):
        object.__setattr__(rule, name, leaf)
    return rule


@dataclasses.dataclass(frozen=True)
class AtExit(Rule):
    """Every row stops at one exit: what a model of that depth would answer and take."""

    exit: int = field(0, at_least=0)

    def check(self, labels: int, exits: int) -> None:
        super().check(labels, exits)
        if self.exit >= exits:
            raise ValueError(
                f"exit is {self.exit}, and the model has {exits}, the head included. Allowed: 0 to "
                f"{exits - 1}."
            )

    def stops(self, count: Any, history: History, logits: Any, number: Any) -> Bool[Array, " B"]:
        return jnp.broadcast_to(jnp.asarray(number) >= self.exit, history.count.shape)


@dataclasses.dataclass(frozen=True)
class Patience(Rule):
    """Stop once `patience` exits in a row agreed with the exit before each.

    Exits agree if they predict the same class; in a regression, if their numbers differ by less
    than `tolerance`. A patience that no row could reach is refused by `check`.
    Source: Zhou et al. (2020), BERT Loses Patience, arXiv:2006.04152.

    >>> rule = Patience(patience=1)
    >>> history = History.start(1, 2)
    >>> for i, logits in enumerate([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 2.0]]]):
    ...     history, stop = rule.decide(history, jnp.array(logits), i)
    ...     print(bool(stop[0]))
    False
    False
    True
    """

    patience: int = field(3, at_least=1)
    tolerance: float = field(0.1, above=0)  # in the unit of the labels; regression only

    def check(self, labels: int, exits: int) -> None:
        super().check(labels, exits)
        check_pairs(self.patience, exits)

    def counted(self, history: History, logits: Any, number: Any) -> Int[Array, " B"]:
        equal = agree(history.previous, logits, self.tolerance) & (jnp.asarray(number) > 0)
        return jnp.where(equal, history.count + 1, 0)

    def stops(self, count: Any, history: History, logits: Any, number: Any) -> Bool[Array, " B"]:
        return count >= self.patience


@dataclasses.dataclass(frozen=True)
class Entropy(Rule):
    """Stop at an exit whose distribution has less entropy than `threshold`, in nats.

    Source: Xin et al. (2020), DeeBERT, arXiv:2004.12993.
    """

    threshold: float = field(0.3, at_least=0)
    classes_only: ClassVar[bool] = True

    def stops(self, count: Any, history: History, logits: Any, number: Any) -> Bool[Array, " B"]:
        log_probs = jax.nn.log_softmax(logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, -1) < self.threshold


@dataclasses.dataclass(frozen=True)
class Confidence(Rule):
    """Stop at an exit that gives some class a probability of `threshold` or more."""

    threshold: float = field(0.9, at_least=0, at_most=1)
    classes_only: ClassVar[bool] = True

    def stops(self, count: Any, history: History, logits: Any, number: Any) -> Bool[Array, " B"]:
        return confidence(logits) >= self.threshold


@dataclasses.dataclass(frozen=True)
class ConfidentPatience(Rule):
    """Stop once `patience` exits in a row were confident: probability of `threshold` or more.

    Source: Zhang et al. (2022), PCEE-BERT, Findings of NAACL.
    """

    patience: int = field(2, at_least=1)
    threshold: float = field(0.8, at_least=0, at_most=1)
    classes_only: ClassVar[bool] = True

    def check(self, labels: int, exits: int) -> None:
        super().check(labels, exits)
        if self.patience > exits:
            raise ValueError(
                f"patience is {self.patience}, and the model has {exits} exits. Allowed: 1 to "
                f"{exits}."
            )

    def counted(self, history: History, logits: Any, number: Any) -> Int[Array, " B"]:
        return jnp.where(confidence(logits) >= self.threshold, history.count + 1, 0)

    def stops(self, count: Any, history: History, logits: Any, number: Any) -> Bool[Array, " B"]:
        return count >= self.patience


@dataclasses.dataclass(frozen=True)
class Distance(Rule):
    """Stop once `patience` exits in a row were closer than `threshold` to the exit before each.

    The distance is the symmetric KL divergence of the two distributions, in nats.
    Source: Gao et al. (2023), F-PABEE, arXiv:2305.11916.
    """

    patience: int = field(1, at_least=1)
    threshold: float = field(0.1, at_least=0)
    classes_only: ClassVar[bool] = True

    def check(self, labels: int, exits: int) -> None:
        super().check(labels, exits)
        check_pairs(self.patience, exits)

    def counted(self, history: History, logits: Any, number: Any) -> Int[Array, " B"]:
        close = symmetric_kl(history.previous, logits) < self.threshold
        return jnp.where(close & (jnp.asarray(number) > 0), history.count + 1, 0)

    def stops(self, count: Any, history: History, logits: Any, number: Any) -> Bool[Array, " B"]:
        return count >= self.patience


@dataclasses.dataclass(frozen=True)
class OptimalStopping(Rule):
    """Stop where the calibrated table says that going on costs more than it brings.

    A row's state at an exit is the bin of what `measured` gives, and whether it agrees with the
    exit before. See stopping.py for the table.
    """

    table: Bool[np.ndarray, "N states"]  # True: stop
    edges: Float[np.ndarray, "N edges"]  # between the bins of an exit, ascending
    tolerance: float = field(0.1, above=0)  # regression: exits agree below this difference

    def check(self, labels: int, exits: int) -> None:
        super().check(labels, exits)
        if len(self.table) != exits or len(self.edges) != exits:
            raise ValueError(
                f"the table is of {len(self.table)} exits, and the model has {exits}, the head "
                "included. Calibrate this model."
            )
        if self.table.shape[1] != 2 * (self.edges.shape[1] + 1):
            raise ValueError(
                f"the table has {self.table.shape[1]} states an exit, and the edges are of "
                f"{self.edges.shape[1] + 1} bins, which have two states each."
            )

    def stops(self, count: Any, history: History, logits: Any, number: Any) -> Bool[Array, " B"]:
        state = states(
            logits, history.previous, jnp.asarray(self.edges)[number], number, self.tolerance
        )
        return jnp.asarray(self.table)[number, state]


def exits_under(rule: Rule, logits: Float[np.ndarray, "rows N C"]) -> Int[np.ndarray, " rows"]:
    """The exit at which each row stops, of logits that were recorded at all exits.

    >>> exits_under(AtExit(1), np.zeros((2, 4, 3), np.float32)).tolist()
    [1, 1]
    """
    rows, exits, labels = logits.shape
    history, exits_of_rows = History.start(rows, labels), np.full(rows, exits - 1)
    for number in range(exits):
        history, stop = rule.decide(history, jnp.asarray(logits[:, number]), number)
        first = np.asarray(stop) & (exits_of_rows > number)
        exits_of_rows[first] = number
    return exits_of_rows


def states(
    logits: Float[Array, "B C"],
    previous: Float[Array, "B C"],
    edges: Float[Array, " edges"],
    number: Int[Array, ""] | int,
    tolerance: Float[Array, ""] | float,
) -> Int[Array, " B"]:
    """Numbers of the rows' states at an exit: bin, and bins + bin where it agrees with the last.

    >>> logits = jnp.array([[0.0, 5.0], [0.0, 0.1], [5.0, 0.0]])
    >>> states(logits, logits, jnp.array([0.1, 0.9]), 1, 0.1).tolist()
    [5, 4, 3]
    """
    bins = jnp.searchsorted(edges, measured(logits, previous), side="right")
    equal = agree(previous, logits, tolerance) & (jnp.asarray(number) > 0)
    return (bins + equal * (edges.shape[0] + 1)).astype(jnp.int32)


def check_pairs(patience: int, exits: int) -> None:
    """Raise ValueError if there are not as many pairs of successive exits as patience needs."""
    if patience >= exits:
        raise ValueError(
            f"patience is {patience}, and a model of {exits} exits has {exits - 1} pairs of "
            f"successive ones: no row would stop. Allowed: 1 to {exits - 1}."
        )


def measured(logits: Float[Array, "B C"], previous: Float[Array, "B C"]) -> Float[Array, " B"]:
    """What bins are of: a number that says how sure an exit is.

    Of two classes the second one's probability, so that a bin says which is predicted as well; of
    more the highest probability; in a regression minus the change since the exit before.
    """
    if logits.shape[-1] == 1:
        return -jnp.abs(logits - previous)[..., 0]
    if logits.shape[-1] == 2:
        return jax.nn.softmax(logits.astype(jnp.float32))[..., 1]
    return confidence(logits)


def agree(
    previous: Float[Array, "B C"],
    logits: Float[Array, "B C"],
    tolerance: Float[Array, ""] | float,
) -> Bool[Array, " B"]:
    """Whether two exits predict the same class, or numbers closer than `tolerance`."""
    if logits.shape[-1] == 1:
        return jnp.abs(logits - previous)[..., 0] < tolerance
    return jnp.argmax(logits, -1) == jnp.argmax(previous, -1)


def confidence(logits: Float[Array, "B C"]) -> Float[Array, " B"]:
    """The largest probability of a class."""
    return jnp.max(jax.nn.softmax(logits.astype(jnp.float32)), -1)


def symmetric_kl(first: Float[Array, "B C"], second: Float[Array, "B C"]) -> Float[Array, " B"]:
    """KL(p || q) + KL(q || p) in nats.

    >>> symmetric_kl(jnp.zeros((1, 2)), jnp.zeros((1, 2))).tolist()
    [0.0]
    """
    p, q = jax.nn.log_softmax(first), jax.nn.log_softmax(second)
    return jnp.sum((jnp.exp(p) - jnp.exp(q)) * (p - q), -1)
