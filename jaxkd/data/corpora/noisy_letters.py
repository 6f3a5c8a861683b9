"""A synthetic CTC task: letters of a sentence are repeated, and some copies are replaced.

Each letter of a sentence of common words is repeated one to three times and 15% of the copies are
replaced at random; the sentence is the target. Only the word distinguishes double letters from
repeated ones.
"""

import collections
import re

from jaxkd.core.random import numpy_stream
from jaxkd.data.sources.embedded import embedded_documents

SIZES = {"train": 8000, "validation": 500, "test": 1000}
WORDS = 300  # the commonest of the prose, three letters or more
REPEATED = (1, 2, 3)
WRONG = 0.15  # share of the copies that are replaced
LONGEST = 20  # letters and spaces of a sentence

Pair = tuple[str, tuple[str, ...]]


def noisy_letters() -> tuple[str, dict[str, list[Pair]]]:
    """Noisy letters and the sentences behind them; the same on every machine of one Python.

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
            sentence = " ".join(words[i] for i in rng.integers(len(words), size=3))
            repeated = "".join(letter * rng.choice(REPEATED) for letter in sentence)
            wrong = rng.random(len(repeated)) < WRONG
            other = rng.integers(len(letters), size=len(repeated))
            noisy = "".join(
                letters[i] if bad and letter != " " else letter
                for letter, bad, i in zip(repeated, wrong, other, strict=True)
            )
            if len(sentence) <= LONGEST and sentence not in known:
                known.add(sentence)
                pairs.append((noisy, (sentence,)))
        content[split] = pairs
    return "noisy letters", content
