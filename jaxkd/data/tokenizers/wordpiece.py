"""A lower-case WordPiece vocabulary trained on a corpus, the same from the same texts."""

import collections
from collections.abc import Iterable

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
UNKNOWN_WORD = "<unk>"  # how WikiText writes a word outside its vocabulary
_SMALLEST = 256


def train_vocabulary(texts: Iterable[str], size: int) -> list[str]:
    """A lower-case WordPiece vocabulary; the same texts give the same one, line by line.

    The library breaks ties by ids, which it gives in the order of a hash table. So the single
    characters are counted and numbered here, and it only merges. The rarest characters are left
    out: at most max(64, size / 16) are kept.

    Raises:
      ValueError: if `size` is below 256.
    """
    import tokenizers

    if size < _SMALLEST:
        raise ValueError(f"data.trained_size is {size}; a vocabulary needs at least {_SMALLEST}.")
    trainee = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    trainee.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    trainee.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    texts = [text.replace(UNKNOWN_WORD, " ") for text in texts]
    words: collections.Counter[str] = collections.Counter()
    for text in texts:
        words.update(trainee.normalizer.normalize_str(text).split())
    characters: collections.Counter[str] = collections.Counter()
    continuing = set()
    for word, count in words.items():
        for piece, _ in trainee.pre_tokenizer.pre_tokenize_str(word):
            characters.update({character: count for character in piece[:1]})
            for character in piece[1:]:
                characters[character] += count
                continuing.add(character)
    ranked = sorted(characters, key=lambda character: (-characters[character], character))
    alphabet = sorted(ranked[: max(64, size // 16)])
    start = [*SPECIAL.values(), *alphabet, *(f"##{c}" for c in alphabet if c in continuing)]
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=start,  # the only entries whose ids the caller chooses
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    trainee.train_from_iterator(texts, trainer)
    vocabulary = trainee.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)
