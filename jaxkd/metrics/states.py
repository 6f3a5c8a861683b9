"""What a metric carries from batch to batch: states that merge, in any order and grouping.

A state is a pytree of arrays with `a + b` and `compute()`. It is made on the device, from one
batch, in float32 (counts of one batch are exact there), and merged on the host in float64
(`on_host`), so that counts stay exact beyond 2^24 targets. `merge_stacked` merges the states that
several devices or hosts made, whose arrays are stacked along a leading axis.
"""

import dataclasses
import functools
import operator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class State(Protocol):
    """A registered dataclass of arrays; jaxkd.core.mean.Mean is one."""

    def __add__(self, other: Any) -> Any: ...

    def compute(self) -> Any: ...


def on_host(state: Any) -> Any:
    """The same state as numpy float64 arrays; booleans stay booleans."""

    def convert(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        return array if array.dtype == bool else array.astype(np.float64)

    return jax.tree.map(convert, state)


def merge_stacked(state: Any) -> Any:
    """One state of the states stacked along the first axis of every array, on the host.

    The axis is that of the devices (what `jax.pmap` returns) or of the hosts (what
    `multihost_utils.process_allgather` returns).

    >>> from jaxkd.core.mean import Mean
    >>> float(merge_stacked(Mean(np.array([4.0, 6.0]), np.array([4.0, 60.0]))).compute())
    0.15625
    """
    host = on_host(state)
    count = len(jax.tree.leaves(host)[0])
    parts = [jax.tree.map(lambda x, i=i: x[i], host) for i in range(count)]
    return functools.reduce(operator.add, parts)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Confusion:
    """How often each class was predicted for each true class.

    >>> Confusion.of(jnp.array([1, 1, 0]), jnp.array([1, 0, 0]), jnp.ones(3, bool), 2).counts
    Array([[1., 1.],
           [0., 1.]], dtype=float32)
    """

    counts: Any  # [C, C]: rows are true classes, columns predicted ones

    @classmethod
    def of(
        cls,
        predictions: Int[Array, "*B"],
        labels: Int[Array, "*B"],
        mask: Bool[Array, "*B"],
        classes: int,
    ) -> "Confusion":
        """Counts where the mask is True; labels must lie in [0, classes)."""
        cell = (labels * classes + predictions).ravel()
        counts = jnp.zeros(classes * classes).at[cell].add(mask.ravel().astype(jnp.float32))
        return cls(counts.reshape(classes, classes))

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(self.counts + other.counts)

    def compute(self) -> Any:
        return self.counts

    def accuracy(self) -> float:
        """Fraction of correct predictions; 0 if nothing was counted."""
        return float(np.trace(self.counts) / max(np.sum(self.counts), 1))

    def f1_by_class(self) -> Float[np.ndarray, " C"]:
        """2 TP / (2 TP + FP + FN) of each class; nan for a class that occurs nowhere."""
        counts = np.asarray(self.counts, np.float64)
        total = counts.sum(0) + counts.sum(1)
        return np.where(total > 0, 2 * np.diag(counts) / np.maximum(total, 1), np.nan)

    def f1(self, positive: int = 1) -> float:
        """F1 of the positive class; 0 if it occurs neither in labels nor in predictions."""
        return float(np.nan_to_num(self.f1_by_class()[positive]))

    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur in labels or predictions, as scikit-learn's."""
        scores = self.f1_by_class()
        return float(np.nanmean(scores)) if np.isfinite(scores).any() else 0.0

    def matthews(self) -> float:
        """Matthews' correlation coefficient; 0 if labels or predictions are all of one class.

        Source: Gorodkin (2004), for any number of classes; scikit-learn's definition.
        """
        counts = np.asarray(self.counts, np.float64)
        true, predicted, n = counts.sum(1), counts.sum(0), counts.sum()
        covariance = np.trace(counts) * n - true @ predicted
        product = (n**2 - predicted @ predicted) * (n**2 - true @ true)
        return float(covariance / np.sqrt(product)) if product > 0 else 0.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, means and centred second moments of pairs (x, y), merged without cancellation.

    Source of `+`: Chan, Golub and LeVeque (1983), updating formulae of pairwise merging.
    """

    count: Any  # scalar, as are all
    mean_x: Any
    mean_y: Any
    xx: Any  # sum of (x - mean_x)^2
    yy: Any  # sum of (y - mean_y)^2
    xy: Any  # sum of (x - mean_x) (y - mean_y)

    @classmethod
    def of(cls, x: Float[Array, "*B"], y: Float[Array, "*B"], mask: Bool[Array, "*B"]) -> "Moments":
        """Moments of the pairs where the mask is True."""
        count = jnp.sum(mask, dtype=jnp.float32)
        n = jnp.maximum(count, 1)

        def centred(values: Any) -> tuple[Any, Any]:
            # From the first counted value: a constant then has moments of exactly 0.
            first = values.ravel()[jnp.argmax(mask.ravel())]
            shifted = jnp.where(mask, values - first, 0.0)
            mean = jnp.sum(shifted) / n
            mean_of_values = jnp.where(count > 0, first + mean, 0.0)
            return mean_of_values, jnp.where(mask, shifted - mean, 0.0)

        (mean_x, x), (mean_y, y) = centred(x.astype(jnp.float32)), centred(y.astype(jnp.float32))
        return cls(count, mean_x, mean_y, jnp.sum(x * x), jnp.sum(y * y), jnp.sum(x * y))

    def __add__(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        dx, dy = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        weight = self.count * share
        return Moments(
            count,
            self.mean_x + dx * share,
            self.mean_y + dy * share,
            self.xx + other.xx + dx * dx * weight,
            self.yy + other.yy + dy * dy * weight,
            self.xy + other.xy + dx * dy * weight,
        )

    def compute(self) -> float:
        """Pearson's correlation; nan if x or y is constant, as scipy's."""
        product = float(self.xx) * float(self.yy)
        return float(self.xy) / float(np.sqrt(product)) if product > 0 else float("nan")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Collected:
    """All pairs (x, y), for what no sum can say; concatenated on the host.

    Memory grows with the number of rows: for one number a row, not for one a token.
    """

    x: tuple[Any, ...]  # arrays [B], one a batch
    y: tuple[Any, ...]
    mask: tuple[Any, ...]

    @classmethod
    def of(
        cls, x: Float[Array, "*B"], y: Float[Array, "*B"], mask: Bool[Array, "*B"]
    ) -> "Collected":
        return cls((x.ravel(),), (y.ravel(),), (mask.ravel(),))

    def __add__(self, other: "Collected") -> "Collected":
        return Collected(self.x + other.x, self.y + other.y, self.mask + other.mask)

    def compute(self) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        """x and y where the mask is True, in the order in which the batches came."""
        mask = np.concatenate(self.mask).astype(bool)
        return tuple(np.concatenate(each).astype(float)[mask] for each in (self.x, self.y))

    def spearman(self) -> float:
        """Spearman's rank correlation, ties at their mean rank; nan if x or y is constant."""
        x, y = (ranks(values) for values in self.compute())
        if len(x) < 2:
            return float("nan")
        x, y = x - x.mean(), y - y.mean()
        product = float((x @ x) * (y @ y))
        return float(x @ y) / float(np.sqrt(product)) if product > 0 else float("nan")


def ranks(values: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Ranks from 1; equal values share the mean of theirs.

    >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[number]
