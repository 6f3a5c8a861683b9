"""What an answer that ignores its input reaches on a split, to compare models with."""

from collections.abc import Iterable, Sequence

import numpy as np

from jaxkd.core.batch import Batch


def class_counts(batches: Iterable[Batch]) -> list[np.ndarray]:
    """How often each class is a target, for each prediction of a row.

    Returns: one array [C] for rows of one label; an array a column for rows of several.
    """
    counts: list[np.ndarray] = []
    for batch in batches:
        targets, mask = np.asarray(batch.targets), np.asarray(batch.target_mask)
        if targets.ndim == 1:
            targets, mask = targets[:, None], mask[:, None]
        counts = counts or [np.zeros(0, np.int64)] * targets.shape[1]
        for i in range(targets.shape[1]):
            more = np.bincount(targets[mask[:, i], i])
            size = max(len(more), len(counts[i]))
            counts[i] = np.pad(counts[i], (0, size - len(counts[i])))
            counts[i] += np.pad(more, (0, size - len(more)))
    return counts


def majority(counts: Sequence[np.ndarray], parts: Sequence[str] = ()) -> dict[str, float]:
    """Accuracy of always answering a split's most frequent class.

    Returns: "majority", and where rows have several predictions "majority_PART" of each; {} if no
      row has a label.

    >>> majority([np.array([3, 1]), np.array([0, 4])], ("a", "b"))
    {'majority': 0.875, 'majority_a': 0.75, 'majority_b': 1.0}
    """
    total = sum(int(each.sum()) for each in counts)
    if not total:
        return {}
    best = {"majority": sum(int(each.max(initial=0)) for each in counts) / total}
    for part, each in zip(parts, counts, strict=False):
        best[f"majority_{part}"] = float(each.max(initial=0) / max(each.sum(), 1))
    return best
