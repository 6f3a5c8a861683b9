"""Which layers of a teacher each layer of a student learns from."""

from collections.abc import Sequence
from typing import Any

from jaxkd.core.names import did_you_mean

# In numbers of hidden states: 0 is the embedding's output, i that of block i - 1.
MAPS = {
    # Evenly spread, the last from the last. Source: TinyBERT (Jiao et al., 2019).
    "uniform": lambda s, t: [(i, (max(1, round(i * t / s)),)) for i in range(1, s + 1)],
    # Every k-th from the bottom, k = t // s. Source: PKD-skip (Sun et al., 2019).
    "skip": lambda s, t: [(i, (i * (t // s),)) for i in range(1, s + 1)],
    "last": lambda s, t: [(i, (t - s + i,)) for i in range(1, s + 1)],
    "first": lambda s, t: [(i, (i,)) for i in range(1, s + 1)],
    # Two to one: `skip` and `last`, concatenated.
    "both": lambda s, t: [(i, (i * (t // s), t - s + i)) for i in range(1, s + 1)],
    # All to each, with learned weights.
    "learned": lambda s, t: [(i, tuple(range(1, t + 1))) for i in range(1, s + 1)],
    "top": lambda s, t: [(s, (t,))],
}

Pairs = list[tuple[int, tuple[int, ...]]]  # (of the student, of the teacher), as MAPS counts


def pairs(layer_map: str | Sequence[Sequence[int]], student: int, teacher: int) -> Pairs:
    """Pairs of layers, for a student of `student` blocks and a teacher of `teacher`.

    Args:
      layer_map: a name of MAPS, or pairs (student's layer, teacher's layer, ...), as tuples or as
        text "0:0,2:4:6": layer i is the i-th block counted from 1, 0 the embedding.
    Raises:
      ValueError: for an unknown name, a layer that does not exist, a student deeper than its
        teacher where the map needs it to be no deeper.

    >>> pairs("uniform", 4, 12), pairs("both", 2, 6)
    ([(1, (3,)), (2, (6,)), (3, (9,)), (4, (12,))], [(1, (3, 5)), (2, (6, 6))])
    >>> pairs([(0, 0), (2, 4, 6)], 2, 6), pairs("0:0,2:4:6", 2, 6)
    ([(0, (0,)), (2, (4, 6))], [(0, (0,)), (2, (4, 6))])
    """
    layer_map = parsed(layer_map)
    if isinstance(layer_map, str):
        if student > teacher and layer_map not in ("top", "learned", "uniform"):
            raise ValueError(
                f"layer_map={layer_map!r} needs a student no deeper than its teacher; it has "
                f"{student} layers, the teacher {teacher}. Use uniform, top, or pairs written out."
            )
        return MAPS[layer_map](student, teacher)
    listed = [(first, tuple(rest)) for first, *rest in layer_map]
    for first, rest in listed:
        if not 0 <= first <= student or not rest or any(not 0 <= i <= teacher for i in rest):
            raise ValueError(
                f"layer_map has the pair {(first, *rest)}: a student's layer, 0 to {student}, "
                f"comes first, then layers of the teacher, 0 to {teacher}."
            )
    return listed


def parsed(layer_map: Any) -> str | tuple[tuple[int, ...], ...]:
    """A name of MAPS, or the pairs of a text such as "0:0,2:4" or of nested sequences.

    Raises:
      ValueError: for text that is neither, and for pairs that are no pairs of whole numbers.
    """
    if isinstance(layer_map, str):
        if layer_map in MAPS:
            return layer_map
        try:
            layer_map = [[int(i) for i in pair.split(":")] for pair in layer_map.split(",")]
        except ValueError:
            raise ValueError(
                f"layer_map={layer_map!r} is neither a name nor pairs of layers like '0:0,2:4' "
                f"(the student's, then the teacher's). {did_you_mean(layer_map, MAPS)}"
            ) from None
    if not isinstance(layer_map, tuple | list):
        raise ValueError(f"layer_map is {layer_map!r}; it is a name, or pairs like '0:0,2:4'.")
    pairs = tuple(tuple(pair) if isinstance(pair, list | tuple) else (pair,) for pair in layer_map)
    if not pairs:
        raise ValueError("layer_map is empty: there is nothing to compare.")
    for pair in pairs:
        if len(pair) < 2 or not all(isinstance(i, int) and i >= 0 for i in pair):
            raise ValueError(
                f"layer_map has {pair}; each element is a student's layer and at least one layer "
                "of the teacher, whole numbers from 0, such as (2, 4)."
            )
    return pairs
