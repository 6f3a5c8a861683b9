"""Tokens that a model never writes."""

from collections.abc import Collection

from jaxkd.data.tokenizers.tokenizer import Tokenizer


def suppressed_tokens(
    tokenizer: Tokenizer, vocabulary: int, *, beginning: Collection[int] = ()
) -> tuple[int, ...]:
    """Ids that decoding suppresses: special tokens except the end token, and unused embedding rows.

    Args:
      tokenizer: its `structural_ids` are the special tokens, its `sep` the end token.
      vocabulary: rows of the model's embedding; those past the tokenizer's ids are padding.
      beginning: special tokens that targets begin with, which are written too.
    """
    unused = range(tokenizer.vocab_size, vocabulary)
    return tuple(sorted((tokenizer.structural_ids - {tokenizer.sep, *beginning}) | set(unused)))
