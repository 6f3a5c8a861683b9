"""A smaller vocabulary: the tokens a corpus uses, which cut its texts as the whole one does."""

import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def used_tokens(
    counts: Int[np.ndarray, " V"], special: Sequence[int], tokens: Sequence[str | None]
) -> Int[np.ndarray, " kept"]:
    """Ids to keep, ascending: tokens that occur, special ones, and single characters.

    Characters, alone or continuing a word (`##x`), spell what the corpus does not know, which
    would become [UNK] without them. A token is None where no token has that id.
    """
    keep = counts > 0
    keep[list(special)] = True
    keep |= np.array([len((token or "").removeprefix("##")) == 1 for token in tokens])
    return np.flatnonzero(keep).astype(np.int32)


def trim_wordpiece(rules: str, kept: Int[np.ndarray, " kept"]) -> str:
    """The rules of a WordPiece tokenizer (tokenizer.json) with the kept tokens alone.

    A text whose tokens are all kept is cut into the same tokens: WordPiece takes the longest entry
    that fits, and that one is still there.

    Raises:
      ValueError: for another kind of tokenizer, or if a special token is not kept.
    """
    settings = json.loads(rules)
    if settings["model"]["type"] != "WordPiece":
        raise ValueError(
            f"the tokenizer's model is {settings['model']['type']}; only a WordPiece vocabulary "
            "can be trimmed."
        )
    new = {int(old): i for i, old in enumerate(kept)}
    vocabulary = settings["model"]["vocab"]
    settings["model"]["vocab"] = {t: new[i] for t, i in vocabulary.items() if i in new}
    for token in settings["added_tokens"]:
        if token["id"] not in new:
            raise ValueError(f"the special token {token['content']} must be kept.")
        token["id"] = new[token["id"]]
    processor = settings.get("post_processor") or {}
    for pair in ("sep", "cls"):
        if pair in processor:
            processor[pair][1] = new[processor[pair][1]]
    for token in (processor.get("special_tokens") or {}).values():
        token["ids"] = [new[i] for i in token["ids"]]
    if (settings.get("padding") or {}).get("pad_id") is not None:
        settings["padding"]["pad_id"] = new[settings["padding"]["pad_id"]]
    return json.dumps(settings, ensure_ascii=False)
