"""A subword vocabulary from which any text is decoded as it was: byte pairs, no byte unknown."""

from collections.abc import Iterable, Sequence
from typing import Any

BYTES = 256


def train_subwords(texts: Iterable[str], size: int, special: Sequence[str]) -> Any:
    """A `tokenizers.Tokenizer` of `size` entries: special tokens, bytes, merges.

    Letters keep their case and marks; spaces are part of the token that follows. The same texts
    give the same vocabulary.
    Source: byte-level BPE as in GPT-2 (Radford et al., 2019), after Sennrich, Haddow, Birch (2016).

    Raises:
      ValueError: if `size` has no room for all bytes and special tokens.
    """
    import tokenizers

    least = BYTES + len(special)
    if size < least:
        raise ValueError(f"data.trained_size is {size}; a vocabulary of subwords needs {least}.")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
