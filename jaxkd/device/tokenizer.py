"""Text to token ids and back, as the tokenizer.json of the `tokenizers` library says.

WordPiece with BERT's normalisation, and byte-level BPE: what jaxkd's own vocabularies and the
families of the small models use. A file with anything else is refused, by name, before any text is.
"""

import json
import unicodedata

from jaxkd.device import pieces
from jaxkd.device.errors import UsageError


class Tokenizer:
    """Reads a tokenizer.json; raises UsageError for a kind that it does not know."""

    def __init__(self, text):
        described = json.loads(text)
        self.normalise = _normaliser(described.get("normalizer"))
        self.pre_tokenise = _pre_tokeniser(described.get("pre_tokenizer"))
        self.model = pieces.model(described["model"])
        self.template = _template(described.get("post_processor"))
        self.decoder = described.get("decoder")
        self.added = described.get("added_tokens") or []
        # What is looked for in normalised texts is normalised too.
        self.raw = [each for each in self.added if not each["normalized"]]
        self.normalised = [
            dict(each, content=self.normalise(each["content"]))
            for each in self.added
            if each["normalized"]
        ]
        self.special = {each["id"] for each in self.added if each["special"]}
        self.ids = dict(self.model.vocabulary)
        self.ids.update((each["content"], each["id"]) for each in self.added)
        self.tokens = {number: token for token, number in self.ids.items()}

    def encode(self, text, pair=None, max_length=None):
        """Ids and segments of a text or of two, special tokens included.

        Args:
          max_length: the longer of the two is cut until both fit.
        """
        texts = [self.pieces(each) for each in ([text] if pair is None else [text, pair])]
        template = self.template[len(texts) - 1]
        if max_length is not None:
            room = max_length - sum(kind == "token" for kind, _, _ in template)
            texts = cut(texts, max(room, 0))
        ids, segments = [], []
        for kind, what, segment in template:
            more = texts[what] if kind == "text" else self._special(what)
            ids.extend(more)
            segments.extend([segment] * len(more))
        return ids, segments

    def pieces(self, text):
        """Ids of a text alone, without special tokens around it."""
        ids = []
        for part, number in self._split(text, self.raw):
            if number is not None:
                ids.append(number)
                continue
            part = self.normalise(part)
            for inner, number in self._split(part, self.normalised):
                if number is not None:
                    ids.append(number)
                    continue
                for word in self.pre_tokenise(inner):
                    ids.extend(self.model.ids(word))
        return ids

    def decode(self, ids, skip_special_tokens=True):
        """The text of these ids."""
        tokens = [
            self.tokens[int(number)]
            for number in ids
            if int(number) in self.tokens
            and not (skip_special_tokens and int(number) in self.special)
        ]
        kind = (self.decoder or {}).get("type")
        if kind == "ByteLevel":
            return pieces.text_of_bytes(tokens)
        if kind == "WordPiece":
            return pieces.text_of_wordpieces(tokens, self.decoder)
        if kind is None:
            return " ".join(tokens)
        raise UsageError(f"this runner does not decode with {kind!r}; print ids instead: --json.")

    def _special(self, token):
        if isinstance(token, list):
            return token
        return [self.ids[token]]

    def _split(self, text, added):
        """Parts of a text: (text, None), or (token, its id) for an added token."""
        start, parts = 0, []
        while added:
            matches = []
            for each in added:
                at = self._at(text, each, start)
                if at is not None:
                    matches.append((at, -len(each["content"]), each))
            if not matches:
                break
            at, _, each = min(matches, key=lambda one: one[:2])
            end = at + len(each["content"])
            before = text[start:at]
            if each["lstrip"]:
                before = before.rstrip()
            while each["rstrip"] and end < len(text) and text[end].isspace():
                end += 1
            if before:
                parts.append((before, None))
            parts.append((each["content"], each["id"]))
            start = end
        if start < len(text):
            parts.append((text[start:], None))
        return parts

    def _at(self, text, each, start):
        """Where an added token is next; one of single words only between other characters."""
        while True:
            at = text.find(each["content"], start)
            if at < 0 or not each["content"]:
                return None
            end = at + len(each["content"])
            around = (text[at - 1 : at] if at else "") + text[end : end + 1]
            if not each["single_word"] or not any(c.isalnum() or c == "_" for c in around):
                return at
            start = at + 1


def cut(texts, room):
    """Texts that fit into `room` tokens together: the longer is cut first."""
    if sum(len(each) for each in texts) <= room:
        return texts
    if len(texts) == 1:
        return [texts[0][:room]]
    short, long = sorted(len(each) for each in texts)
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short = room // 2
        long = short + room % 2
    if len(texts[0]) > len(texts[1]):
        short, long = long, short
    return [texts[0][:short], texts[1][:long]]


def _normaliser(described):
    """A function of a text."""
    if described is None:
        return lambda text: text
    kind = described["type"]
    if kind == "Sequence":
        steps = [_normaliser(each) for each in described["normalizers"]]

        def all_of(text):
            for step in steps:
                text = step(text)
            return text

        return all_of
    if kind == "BertNormalizer":
        return pieces.BertNormaliser(described)
    if kind == "Lowercase":
        return pieces.lowered
    if kind == "StripAccents":
        return lambda text: pieces.without_accents(text, ("Mn", "Mc", "Me"))
    if kind in ("NFC", "NFD", "NFKC", "NFKD"):
        return lambda text: unicodedata.normalize(kind, text)
    if kind == "Prepend":
        return lambda text: described["prepend"] + text if text else text
    if kind == "Replace" and "String" in described["pattern"]:
        return lambda text: text.replace(described["pattern"]["String"], described["content"])
    raise _unknown("normalizer", kind)


def _pre_tokeniser(described):
    """A function from a text to its words."""
    if described is None:
        return lambda text: [text] if text else []
    kind = described["type"]
    if kind == "BertPreTokenizer":
        return pieces.bert_words
    if kind == "ByteLevel":
        return pieces.ByteLevel(described)
    if kind == "Split":
        return pieces.Split(described)
    if kind == "Sequence":
        steps = [_pre_tokeniser(each) for each in described["pretokenizers"]]

        def all_of(text):
            words = [text]
            for step in steps:
                words = [inner for word in words for inner in step(word)]
            return words

        return all_of
    raise _unknown("pre_tokenizer", kind)


def _template(described):
    """What is made of one text and of two: ("token", name, segment), ("text", 0 or 1, segment)."""
    plain = [[("text", 0, 0)], [("text", 0, 0), ("text", 1, 1)]]
    if described is None or described["type"] == "ByteLevel":
        return plain
    kind = described["type"]
    if kind == "Sequence":
        inner = [_template(each) for each in described["processors"]]
        changed = [each for each in inner if each != plain]
        if len(changed) > 1:
            raise _unknown("post_processor", "Sequence of several templates")
        return changed[0] if changed else plain
    if kind == "BertProcessing":
        cls, sep = [described["cls"][1]], [described["sep"][1]]
        one = [("token", cls, 0), ("text", 0, 0), ("token", sep, 0)]
        return [one, one + [("text", 1, 1), ("token", sep, 1)]]
    if kind == "RobertaProcessing":
        cls, sep = [described["cls"][1]], [described["sep"][1]]
        one = [("token", cls, 0), ("text", 0, 0), ("token", sep, 0)]
        return [one, one + [("token", sep, 0), ("text", 1, 0), ("token", sep, 0)]]
    if kind != "TemplateProcessing":
        raise _unknown("post_processor", kind)
    made = []
    for name in ("single", "pair"):
        template = []
        for each in described[name]:
            if "SpecialToken" in each:
                token = each["SpecialToken"]
                ids = described["special_tokens"][token["id"]]["ids"]
                template.append(("token", ids, token["type_id"]))
            else:
                text = each["Sequence"]
                template.append(("text", "AB".index(text["id"]), text["type_id"]))
        made.append(template)
    return made


def _unknown(what, kind):
    return UsageError(
        f"this runner has no {what} of the kind {kind!r} (it has WordPiece and byte-level BPE). "
        "Make the tokens elsewhere and give them with --ids."
    )
