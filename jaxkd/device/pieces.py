"""Words and pieces of words: BERT's normalisation, WordPiece, byte-level BPE."""

import re
import sys
import unicodedata

from jaxkd.device.errors import UsageError

# What Unicode calls white space; Python's str.isspace and \\s have four control characters more.
SPACES = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACE = re.compile(f"[{SPACES}]")
CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class BertNormaliser:
    """Control characters out, Chinese apart, accents and capitals away, as the settings say."""

    def __init__(self, described):
        self.clean = described["clean_text"]
        self.chinese = described["handle_chinese_chars"]
        self.lower = described["lowercase"]
        accents = described["strip_accents"]
        self.accents = self.lower if accents is None else accents

    def __call__(self, text):
        if self.clean:
            text = "".join(" " if _SPACE.match(c) else c for c in text if not _is_control(c))
        if self.chinese:
            text = "".join(f" {c} " if _is_chinese(c) else c for c in text)
        if self.accents:
            text = without_accents(unicodedata.normalize("NFD", text))
        return lowered(text) if self.lower else text


def lowered(text):
    """Each character alone: a whole word's last sigma would be another letter."""
    return "".join(c.lower() for c in text)


def without_accents(text, kinds=("Mn",)):
    return "".join(c for c in text if unicodedata.category(c) not in kinds)


def _is_control(character):
    if character in "\t\n\r":
        return False
    return character in "\0\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs")


def _is_chinese(character):
    code = ord(character)
    return code >= 0x3400 and any(first <= code <= last for first, last in CHINESE)


def is_punctuation(character):
    """Unicode's punctuation, and all of ASCII's signs."""
    code = ord(character)
    if code < 128:
        return 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return unicodedata.category(character).startswith("P")


def bert_words(text):
    """Words between white space; each punctuation mark is one."""
    words, word = [], []
    for character in text:
        space = _SPACE.match(character)
        if space or is_punctuation(character):
            if word:
                words.append("".join(word))
            word = []
            if not space:
                words.append(character)
        else:
            word.append(character)
    return words + ["".join(word)] if word else words


class WordPiece:
    """The longest piece of the vocabulary first."""

    def __init__(self, described):
        self.vocabulary = described["vocab"]
        self.unknown = self.vocabulary.get(described["unk_token"])
        self.prefix = described["continuing_subword_prefix"]
        self.longest = described["max_input_chars_per_word"]

    def ids(self, word):
        if len(word) > self.longest:
            return [self.unknown]
        start, ids = 0, []
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = (self.prefix if start else "") + word[start:end]
                if piece in self.vocabulary:
                    break
            else:
                return [self.unknown]
            ids.append(self.vocabulary[piece])
            start = end
        return ids


class Bpe:
    """The pair that was merged first in training is merged first."""

    def __init__(self, described):
        for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
            if described.get(name):
                raise UsageError(f"this runner has no BPE with {name}.")
        if described.get("byte_fallback"):
            raise UsageError("this runner has no BPE with byte_fallback. Give tokens with --ids.")
        self.vocabulary = described["vocab"]
        pairs = [
            tuple(each.split(" ")) if isinstance(each, str) else tuple(each)
            for each in described["merges"]
        ]
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self.unknown = self.vocabulary.get(described.get("unk_token"))
        self.whole_words = bool(described.get("ignore_merges"))
        self._known = {}

    def ids(self, word):
        if word not in self._known:
            self._known[word] = self._merged(word)
        return self._known[word]

    def _merged(self, word):
        if self.whole_words and word in self.vocabulary:
            return [self.vocabulary[word]]
        parts, never = list(word), len(self.ranks)
        while len(parts) > 1:
            ranks = [self.ranks.get(pair, never) for pair in zip(parts, parts[1:])]
            best = min(ranks)
            if best == never:
                break
            at = ranks.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        ids = [self.vocabulary.get(part, self.unknown) for part in parts]
        return [number for number in ids if number is not None]


MODELS = {"WordPiece": WordPiece, "BPE": Bpe}


def model(described):
    """The model of a tokenizer.json."""
    kind = described.get("type")
    if kind not in MODELS:
        raise UsageError(
            "this runner has no tokenizer of the kind {!r}; it has {}. Make the tokens "
            "elsewhere and give them with --ids.".format(kind, " and ".join(sorted(MODELS)))
        )
    return MODELS[kind](described)


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class ByteLevel:
    """Words with the space before them; each byte of UTF-8 is one character of an alphabet."""

    def __init__(self, described):
        self.prefix = described.get("add_prefix_space", True)
        self.split = pattern(GPT2) if described.get("use_regex", True) else None

    def __call__(self, text):
        if self.prefix and text and not text.startswith(" "):
            text = " " + text
        words = self.split.findall(text) if self.split else [text]
        return ["".join(ALPHABET[byte] for byte in word.encode("utf-8")) for word in words if word]


class Split:
    """Words by a pattern."""

    def __init__(self, described):
        behaviour = described["behavior"]
        if behaviour not in ("Isolated", "Removed") or described.get("invert"):
            raise UsageError(
                "this runner has no Split with behavior {!r}{}.".format(
                    behaviour, ", inverted" if described.get("invert") else ""
                )
            )
        needed = described["pattern"]
        self.keep = behaviour == "Isolated"
        self.split = (
            pattern(needed["Regex"])
            if "Regex" in needed
            else re.compile(re.escape(needed["String"]))
        )

    def __call__(self, text):
        words, start = [], 0
        for match in self.split.finditer(text):
            words.append(text[start : match.start()])
            if self.keep:
                words.append(match.group())
            start = match.end()
        return [word for word in words + [text[start:]] if word]


def pattern(text):
    """A pattern with Unicode's \\p{L}, \\p{N} and \\s, which Python's `re` lacks or has otherwise.

    Raises UsageError for a pattern that uses more than that.
    """
    made, inside, at = [], False, 0
    while at < len(text):
        following = text[at : at + 5]
        if following in (r"\p{L}", r"\p{N}"):
            made.append(_class(following[3]) if inside else f"[{_class(following[3])}]")
            at += 5
        elif following[:2] in (r"\s", r"\S"):
            if following[1] == "S" and inside:
                raise UsageError(f"this runner cannot read the pattern {text!r}.")
            sign = "^" if following[1] == "S" else ""
            made.append(SPACES if inside else f"[{sign}{SPACES}]")
            at += 2
        elif following[0] == "\\":
            if following[1:2] in "pPwWdDbB":
                raise UsageError(
                    f"this runner cannot read {following[:2]!r} of the pattern {text!r}."
                )
            made.append(following[:2])
            at += 2
        else:
            inside = (inside or following[0] == "[") and following[0] != "]"
            made.append(following[0])
            at += 1
    try:
        return re.compile("".join(made))
    except re.error as error:
        raise UsageError(f"this runner cannot read the pattern {text!r} ({error}).") from error


_CLASSES = {}


def _class(letter):
    """All characters of a Unicode category, as ranges of a character class."""
    if letter not in _CLASSES:
        ranges, first = [], None
        for code in range(sys.maxunicode + 2):
            inside = code <= sys.maxunicode and unicodedata.category(chr(code))[0] == letter
            if inside and first is None:
                first = code
            elif not inside and first is not None:
                ranges.append(f"{re.escape(chr(first))}-{re.escape(chr(code - 1))}")
                first = None
        _CLASSES[letter] = "".join(ranges)
    return _CLASSES[letter]


def _alphabet():
    """GPT-2's character for each byte: itself where it is printable, else one above 255."""
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b]
    others = [b for b in range(256) if b not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters.update((byte, chr(256 + i)) for i, byte in enumerate(others))
    return letters


ALPHABET = _alphabet()
_BYTES = {letter: byte for byte, letter in ALPHABET.items()}


def text_of_bytes(tokens):
    """Of byte-level tokens."""
    content = bytearray()
    for token in tokens:
        if all(letter in _BYTES for letter in token):
            content.extend(_BYTES[letter] for letter in token)
        else:
            content.extend(token.encode("utf-8"))
    return bytes(content).decode("utf-8", "replace")


def text_of_wordpieces(tokens, described):
    """Of WordPiece's tokens: continuing pieces joined, and no space before signs."""
    prefix, words = described["prefix"], []
    for i, token in enumerate(tokens):
        if i:
            continues = token.startswith(prefix)
            token = token[len(prefix) :] if continues else " " + token
        if described["cleanup"]:
            for sign in (" .", " ?", " !", " ,", " n't", " 'm", " 's", " 've", " 're"):
                token = token.replace(sign, sign[1:])
        words.append(token)
    return "".join(words)
