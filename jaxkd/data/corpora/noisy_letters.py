"""Words out of a bad microphone: each letter comes one to three times, and some are heard wrong.

A task for models that name a label or nothing at each place (CTC), small enough to be made here:
sentences of common words, letters repeated and replaced by other ones at random; what was said is
to be written. Double letters can be told from repeated ones by the word alone.
"""

import collections
import re

from jaxkd.core.random import numpy_stream
from jaxkd.data.sources.embedded import embedded_documents

SIZES = {"train": 8000, "validation": 500, "test": 1000}
WORDS = 300  # the commonest of the prose, three letters or more
REPEATED = (1, 2, 3)
WRONG = 0.15  # share of the letters heard that are others
LONGEST = 20  # letters and spaces of a sentence

Pair = tuple[str, tuple[str, ...]]


def noisy_letters() -> tuple[str, dict[str, list[Pair]]]:
    """Sentences as they are heard and as they were said; the same on every machine of one Python.

    No sentence is in two splits.
    """
    counts: collections.Counter[str] = collections.Counter()
    for text in embedded_documents()["train"]:
        counts.update(re.findall(r"[a-z]{3,9}", text.lower()))
    words = sorted(sorted(counts), key=lambda word: -counts[word])[:WORDS]
    rng = numpy_stream(0, "noisy_letters", 0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    content: dict[str, list[Pair]] = {}
    known: set[str] = set()
    for split, size in SIZES.items():
        pairs: list[Pair] = []
        while len(pairs) < size:
            said = " ".join(words[i] for i in rng.integers(len(words), size=3))
            heard = "".join(letter * rng.choice(REPEATED) for letter in said)
            wrong = rng.random(len(heard)) < WRONG
            other = rng.integers(len(letters), size=len(heard))
            noisy = "".join(
                letters[i] if bad and letter != " " else letter
                for letter, bad, i in zip(heard, wrong, other, strict=True)
            )
            if len(said) <= LONGEST and said not in known:
                known.add(said)
                pairs.append((noisy, (said,)))
        content[split] = pairs
    return "noisy_letters words", content
