"""What a model that names a label or nothing at each place has spelt, and what else it may have."""

import math

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxkd.core.batch import BLANK
from jaxkd.decode.candidates import NEVER

Spelling = tuple[tuple[int, ...], float]  # labels, and their log-probability


def collapsed(path: Int[np.ndarray, " L"], blank: int = BLANK) -> list[int]:
    """The labels a path spells: equal neighbours are one, blanks are none.

    >>> collapsed(np.array([0, 5, 5, 0, 5, 7]))
    [5, 5, 7]
    """
    changed = np.append(True, path[1:] != path[:-1]) & (path != blank)
    return [int(label) for label in path[changed]] if len(path) else []


def n_best(
    log_p: Float[np.ndarray, "L V"], *, width: int, n: int, blank: int = BLANK, labels: int = 0
) -> list[Spelling]:
    """The `n` likeliest hypotheses among those a beam of `width` finds, best first.

    A spelling's probability is the sum over the paths the beam kept: exact if it kept all.
    Source: prefix search of Hannun et al. (2014), arXiv:1408.2873.

    Args:
      log_p: log-probability of each label at each place.
      labels: only so many of the likeliest labels go on at each place; 0: all.
    """
    # Of each spelling: the log-probability of its paths that end in the blank, and in its label.
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for place in np.asarray(log_p, np.float64):
        likely = np.argsort(-place, kind="stable")[: labels or None].tolist()
        place = place.tolist()
        grown: dict[tuple[int, ...], list[float]] = {}

        def add(spelling: tuple[int, ...], kind: int, value: float, grown=grown) -> None:
            both = grown.setdefault(spelling, [-math.inf, -math.inf])
            both[kind] = _sum(both[kind], value)

        for spelling, (in_blank, in_label) in beam.items():
            whole = _sum(in_blank, in_label)
            add(spelling, 0, whole + place[blank])
            if spelling:
                add(spelling, 1, in_label + place[spelling[-1]])
            for label in likely:
                if label == blank:
                    continue
                # Once more the last label: only after a blank is it another one.
                before = in_blank if spelling[-1:] == (label,) else whole
                if before > -math.inf:
                    add((*spelling, label), 1, before + place[label])
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

    A beam of one is greedy: it takes the likeliest path. Rows that have fewer hypotheses have
    NEVER there. As many labels go on at each place as the beam is wide, and the blank.
    """
    ids = np.full((len(log_p), n, room), BLANK, np.int32)
    lengths = np.zeros((len(log_p), n), np.int32)
    told = np.full((len(log_p), n), NEVER, np.float32)
    for i, (row, there) in enumerate(zip(log_p, mask, strict=True)):
        row = row[there]
        if width == 1:
            found = [(tuple(collapsed(row.argmax(1))), float(row.max(1).sum()))]
        else:
            found = n_best(row, width=width, n=n, labels=width + 1)
        for j, (labels, value) in enumerate(found):
            ids[i, j, : len(labels)] = labels
            lengths[i, j], told[i, j] = len(labels), value
    return ids, lengths, told


def _sum(a: float, b: float) -> float:
    """log(exp(a) + exp(b)); numpy's takes several times as long for single numbers."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))
