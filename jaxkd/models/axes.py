"""Names of all parameters and the meaning of their axes, in one table.

Sharding, int8, width pruning, weight decay, vocabulary trimming and decoding read it: each says
what it does with an axis, and none knows a name. A name without a row is an error, so that no new
parameter is treated wrongly in silence; a family from outside the tree adds its own rows
(`families.register`).

Letters: D width, M width of the embedding (D but in ALBERT), HK heads x head width, GK the same of
keys and values that share queries, K head width, H heads, F feed-forward, V vocabulary,
X vocabulary of a separate encoder, P positions, T segments (types), R buckets of relative
positions, C classes, E experts, I width of an expert, J width of the shared expert,
W an LSTM's state, 4W its gates, O one output, 1 an axis that is broadcast, N blocks (stacked),
A anything.
"""

import re
from collections.abc import Mapping

TABLE: dict[str, tuple[str, ...]] = {  # pattern of a name -> letters, for each number of axes
    r"embed/token": ("V M",),
    r"encoder/embed/token": ("X M",),
    r"embed/position": ("P M",),
    r"embed/segment": ("T M",),
    r"embed/relative": ("R H",),
    r"embed/norm/(scale|bias)": ("M",),
    r"embed/widen/kernel": ("M D",),
    r"embed/widen/bias": ("D",),
    r"block/(attention|cross)/query/kernel": ("D HK",),
    r"block/(attention|cross)/query/bias": ("HK",),
    r"block/(attention|cross)/(key|value)/kernel": ("D GK",),
    r"block/(attention|cross)/(key|value)/bias": ("GK",),
    r"block/(attention|cross)/output/kernel": ("HK D",),
    r"block/(attention|cross)/output/bias": ("D",),
    r"block/attention/(query|key)_norm/scale": ("K",),
    r"block/(attention_|cross_)?norm/(scale|bias)": ("D",),
    r"block/feed_forward/(expand|gate)/kernel": ("D F",),
    r"block/feed_forward/(expand|gate)/bias": ("F",),
    r"block/feed_forward/contract/kernel": ("F D",),
    r"block/feed_forward/contract/bias": ("D",),
    r"block/experts/router/kernel": ("D E",),
    r"block/experts/(expand|gate)": ("E D I",),
    r"block/experts/contract": ("E I D",),
    r"block/experts/shared/(expand|gate)/kernel": ("D J",),
    r"block/experts/shared/contract/kernel": ("J D",),
    r"block/experts/shared_gate/kernel": ("D O",),
    r"block/(lstm|forward|backward)/input/kernel": ("D 4W",),
    r"block/(lstm|forward|backward)/input/bias": ("4W",),
    r"block/(lstm|forward|backward)/recurrent": ("W 4W",),
    r"head/output": ("V D",),
    r"head/bias": ("V", "1 V"),
    r"head/transform/kernel": ("D M",),
    r"head/transform/bias": ("M",),
    r"head/norm/(scale|bias)": ("M",),
    r"head/final_norm/(scale|bias)": ("D",),
    r"head/(.+_)?pool/kernel": ("D D",),
    r"head/(.+_)?pool/bias": ("D",),
    r"head/(.+_)?classify/kernel": ("D C",),
    r"head/(.+_)?classify/bias": ("C",),
    # What loss terms learn themselves (distil/objective.py); no part of the model.
    r"terms/.+": ("A", "A A"),
}
_ROW_LETTERS = {"V", "X", "P", "T", "R"}  # each index along such an axis is a vector of its own


def add(rows: Mapping[str, tuple[str, ...]]) -> None:
    """Add rows for parameters of another family: a pattern of names -> letters of their axes."""
    for pattern, letters in rows.items():
        if TABLE.setdefault(pattern, letters) != letters:
            raise ValueError(f"axes of {pattern!r} are {TABLE[pattern]}, not {letters}.")


def normalised(name: str) -> tuple[str, bool]:
    """The name as the table has it, and whether it is of stacked blocks.

    >>> normalised("encoder/blocks/3/norm/scale"), normalised("blocks/norm/scale")
    (('block/norm/scale', False), ('block/norm/scale', True))
    >>> normalised("optimiser/0/mu/embed/token")  # of a training state
    ('embed/token', False)
    """
    match = re.search(r"(?:^|/)(terms|encoder/embed|embed|blocks|head|exit_\d+)/", name)
    if match is None:
        return name, False
    part, rest = match[1], name[match.end() :]
    if part == "blocks":
        listed = re.match(r"\d+/", rest)
        return f"block/{rest[listed.end() :] if listed else rest}", listed is None
    if part.startswith("exit_"):
        part = "head"
    if part == "encoder/embed" and rest != "token":
        part = "embed"
    return f"{part}/{rest}", False


def rows_of(name: str) -> list[str]:
    """Patterns of the table that match a parameter's name."""
    short, _ = normalised(name)
    return [pattern for pattern in TABLE if re.fullmatch(pattern, short)]


def axes(name: str, ndim: int) -> tuple[str, ...]:
    """A letter for each axis of a parameter; "N" first if blocks are stacked.

    Raises:
      ValueError: if the table has no row for it.

    >>> axes("blocks/0/attention/query/kernel", 2), axes("blocks/norm/scale", 2)
    (('D', 'HK'), ('N', 'D'))
    """
    _, stacked = normalised(name)
    for pattern in rows_of(name):
        for letters in TABLE[pattern]:
            if len(letters.split()) == ndim - stacked:
                return ("N",) * stacked + tuple(letters.split())
    raise ValueError(
        f"the parameter {name!r} with {ndim} axes has no row in jaxkd/models/axes.py. "
        "Add one, or give families.register the rows of your family."
    )


def is_matrix(letters: tuple[str, ...]) -> bool:
    """Whether it is a table or matrix of weights, not a bias or a norm.

    >>> is_matrix(("D", "F")), is_matrix(("N", "F")), is_matrix(("1", "V"))
    (True, False, False)
    """
    return sum(letter not in ("1", "N") for letter in letters) > 1


def is_recurrent(letters: tuple[str, ...]) -> bool:
    """Whether it multiplies an LSTM's state, which stays float32 whatever the rest is."""
    return letters[-2:] == ("W", "4W")


def has_rows(letters: tuple[str, ...]) -> bool:
    """Whether it is a table with a vector for each token, position or bucket.

    >>> has_rows(("V", "M")), has_rows(("D", "V"))
    (True, False)
    """
    return is_matrix(letters) and letters[-2] in _ROW_LETTERS
