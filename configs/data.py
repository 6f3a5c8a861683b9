"""Data sets by name."""

from jaxkd.data.masked_text import MaskedText


def wikitext2(length: int = 128) -> MaskedText:
    """WikiText-2 under bert-base-uncased: a folder, $JAXKD_DATA/wikitext-2, or the hub."""
    return MaskedText(length=length)


def embedded(length: int = 64, rows: int = 0) -> MaskedText:
    """The prose every Python carries, under a small vocabulary trained on it; no network."""
    return MaskedText(
        source="embedded", tokenizer="trained", trained_size=2048, length=length, rows=rows
    )
