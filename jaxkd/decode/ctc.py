"""CTC decoding: the likeliest path of a model's frames, and prefix beam search."""

import math

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxkd.core.batch import BLANK
from jaxkd.decode.candidates import NEVER

Spelling = tuple[tuple[int, ...], float]  # labels, and their log-probability


def collapsed(path: Int[np.ndarray, " L"], blank: int = BLANK) -> list[int]:
    """The labels of a path: equal neighbours merged, blanks removed.

    >>> collapsed(np.array([0, 5, 5, 0, 5, 7]))
    [5, 5, 7]
    """
    changed = np.append(True, path[1:] != path[:-1]) & (path != blank)
    return [int(label) for label in path[changed]] if len(path) else []


def n_best(
    log_p: Float[np.ndarray, "L V"], *, width: int, n: int, blank: int = BLANK, labels: int = 0
) -> list[Spelling]:
    """The `n` likeliest hypotheses of a prefix beam search of `width`, best first.

    A hypothesis' probability is the sum over the paths in the beam: exact if the beam holds all.
    Source: prefix search of Hannun et al. (2014), arXiv:1408.2873.

    Args:
      log_p: log-probability of each label at each position.
      labels: number of likeliest labels that extend a prefix at each position; 0: all.
    """
    # Of each spelling: the log-probability of its paths that end in the blank, and in its label.
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for frame in np.asarray(log_p, np.float64):
        likely = np.argsort(-frame, kind="stable")[: labels or None].tolist()
        frame = frame.tolist()
        grown: dict[tuple[int, ...], list[float]] = {}

        def add(spelling: tuple[int, ...], kind: int, value: float, grown=grown) -> None:
            both = grown.setdefault(spelling, [-math.inf, -math.inf])
            both[kind] = _sum(both[kind], value)

        for spelling, (in_blank, in_label) in beam.items():
            whole = _sum(in_blank, in_label)
            add(spelling, 0, whole + frame[blank])
            if spelling:
                add(spelling, 1, in_label + frame[spelling[-1]])
            for label in likely:
                if label == blank:
                    continue
                # The last label again counts as a new one only after a blank.
                before = in_blank if spelling[-1:] == (label,) else whole
                if before > -math.inf:
                    add((*spelling, label), 1, before + frame[label])
        ranked = sorted(grown.items(), key=lambda item: -_sum(*item[1]))
        beam = {spelling: (both[0], both[1]) for spelling, both in ranked[:width]}
    return [(spelling, _sum(*both)) for spelling, both in list(beam.items())[:n]]


def n_best_of(
    log_p: Float[np.ndarray, "B L V"],
    mask: Bool[np.ndarray, "B L"],
    *,
    width: int,
    n: int,
    room: int,
) -> tuple[Int[np.ndarray, "B {n} {room}"], Int[np.ndarray, "B {n}"], Float[np.ndarray, "B {n}"]]:
    """The n best of each row as arrays: labels, how many, log-probabilities.

    A beam of one is greedy: it takes the likeliest path. Rows with fewer hypotheses
    have NEVER at the rest. At each position, `width` labels and the blank extend a prefix.
    """
    ids = np.full((len(log_p), n, room), BLANK, np.int32)
    lengths = np.zeros((len(log_p), n), np.int32)
    log_probs = np.full((len(log_p), n), NEVER, np.float32)
    for i, (row, row_mask) in enumerate(zip(log_p, mask, strict=True)):
        row = row[row_mask]
        if width == 1:
            hypotheses = [(tuple(collapsed(row.argmax(1))), float(row.max(1).sum()))]
        else:
            hypotheses = n_best(row, width=width, n=n, labels=width + 1)
        for j, (labels, value) in enumerate(hypotheses):
            ids[i, j, : len(labels)] = labels
            lengths[i, j], log_probs[i, j] = len(labels), value
    return ids, lengths, log_probs


def _sum(a: float, b: float) -> float:
    """log(exp(a) + exp(b)); numpy's takes several times as long for single numbers."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))
