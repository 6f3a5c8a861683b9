"""What a folder's tokenizer says is what transformers says, whatever files it has."""

import importlib.util
import json

import numpy as np
import pytest
import tokenizers
import transformers

from jaxkd.data.tokenizers.tokenizer import folder_tokenizer, open_tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "film", "was", "good", "niño", "nino", "电", "影", "电影", ",", "."]
PROSE = ["a good film and a bad film"] * 20
has_sentencepiece = importlib.util.find_spec("sentencepiece") is not None


def wordpiece(folder, vocabulary=(*SPECIAL, *WORDS), **settings):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def byte_pairs(special):
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(PROSE, vocab_size=300, special_tokens=special, show_progress=False)
    return trained


def opened(folder, cache, **changes):
    def unread():
        raise AssertionError("no vocabulary had to be trained")

    return open_tokenizer(str(folder), texts=unread, fingerprint="f", cache=cache, **changes)


@pytest.mark.parametrize("padding", [False, True, "max_length"])
@pytest.mark.parametrize("truncation", [False, True])
def test_truncation_and_padding_of_the_file_never_act(truncation, padding, tmp_path):
    source = transformers.AutoTokenizer.from_pretrained(wordpiece(tmp_path / "source"))
    length = {} if padding is True and not truncation else {"max_length": 8}
    source(["the film", "the"], truncation=truncation, padding=padding, **length)
    source.save_pretrained(tmp_path / "saved")
    plain, ours = (opened(tmp_path / name, tmp_path) for name in ("source", "saved"))
    assert ours.fingerprint == plain.fingerprint
    texts = ["the film was very good , " * 6, "the"]
    expected = source(texts, add_special_tokens=False)["input_ids"]
    assert [row.tolist() for row in ours.encode(texts)] == expected
    ours.encode_pairs(texts, max_length=5)  # which cuts, in transformers' own tokenizer
    assert [row.tolist() for row in ours.encode(texts)] == expected
    ours.save(tmp_path / "again")
    rules = json.loads((tmp_path / "again" / "tokenizer.json").read_text())
    assert rules["truncation"] is None and rules["padding"] is None


@pytest.mark.parametrize(
    "settings",
    [{}, {"strip_accents": False}, {"tokenize_chinese_chars": False}, {"do_lower_case": False}],
    ids=str,
)
def test_settings_beside_a_vocabulary_are_read(settings, tmp_path):
    folder = wordpiece(tmp_path / "t", **settings)
    texts = ["niño", "The film", "电影"]
    expected = transformers.AutoTokenizer.from_pretrained(folder)(texts, add_special_tokens=False)
    result = [row.tolist() for row in opened(folder, tmp_path).encode(texts)]
    assert result == expected["input_ids"]


def test_the_settings_differ_on_these_texts(tmp_path):
    rows = [
        opened(wordpiece(tmp_path / str(i), **settings), tmp_path).encode(["niño 电影"])[0].tolist()
        for i, settings in enumerate(
            [{}, {"strip_accents": False}, {"tokenize_chinese_chars": False}]
        )
    ]
    assert len({tuple(row) for row in rows}) == 3


def test_special_tokens_of_other_names_are_read(tmp_path):
    named = dict(
        pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>", mask_token="<mask>"
    )
    folder = wordpiece(tmp_path / "t", [*named.values(), *WORDS], **named)
    for settings in (named, {name: {"content": token} for name, token in named.items()}):
        # once by transformers' class, once by the vocabulary alone
        for kind in ({"tokenizer_class": "BertTokenizer"} | named, settings):
            (folder / "tokenizer_config.json").write_text(json.dumps(kind))
            ours = opened(folder, tmp_path)
            assert [ours.pad, ours.unk, ours.cls, ours.sep, ours.mask] == [0, 1, 2, 3, 4]


def test_robertas_own_files_are_opened_as_robertas(tmp_path):
    byte_pairs(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]).save_model(str(tmp_path))
    settings = {"tokenizer_class": "RobertaTokenizer"}
    for name, content in (
        ("tokenizer_config.json", settings),
        ("config.json", {"model_type": "roberta"}),
    ):
        (tmp_path / name).write_text(json.dumps(content))
        ours = opened(tmp_path, tmp_path / "cache")
        assert [ours.cls, ours.pad, ours.sep, ours.unk, ours.mask] == [0, 1, 2, 3, 4]
        reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert (
            ours.encode_pairs(["a film"], max_length=9)[0][0].tolist()
            == (reference("a film")["input_ids"])
        )
        (tmp_path / name).unlink()


@pytest.mark.parametrize("named", [True, False], ids=["class named", "class not named"])
def test_a_gpt2_with_its_own_special_tokens_gets_no_other(named, tmp_path):
    trained = byte_pairs(["<s>", "<pad>", "</s>"])
    trained.save_model(str(tmp_path))
    if named:
        settings = dict(eos_token="</s>", bos_token="<s>", pad_token="<pad>", unk_token="</s>")
        settings["tokenizer_class"] = "GPT2Tokenizer"
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = opened(tmp_path, tmp_path / "cache", masked=False)
    assert (ours.cls, ours.pad, ours.sep) == (0, 1, 2)
    assert ours.vocab_size == trained.get_vocab_size()


def test_a_tokenizer_json_alone_gets_no_token_it_does_not_have(tmp_path):
    trained = byte_pairs(["<|endoftext|>"])
    trained.save(str(tmp_path / "tokenizer.json"))
    ours = opened(tmp_path, tmp_path / "cache", masked=False)
    assert ours.vocab_size == trained.get_vocab_size()
    assert (ours.cls, ours.sep, ours.unk) == (0, 0, None)


def test_a_byte_pair_vocabulary_without_an_end_is_refused(tmp_path):
    byte_pairs([]).save_model(str(tmp_path))
    with pytest.raises(ValueError, match=r"vocab\.json has no <\|endoftext\|>"):
        opened(tmp_path, tmp_path / "cache", masked=False)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(ValueError, match=r"no merges\.txt"):
        opened(tmp_path, tmp_path / "cache", masked=False)


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {}}'])
def test_a_damaged_tokenizer_is_a_value_error(content, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json is no tokenizer"):
        opened(tmp_path, tmp_path / "cache", masked=False)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    with pytest.raises(ValueError, match="cannot open the tokenizer in"):
        opened(tmp_path, tmp_path / "cache", masked=False)


@pytest.mark.skipif(has_sentencepiece, reason="sentencepiece is installed")
@pytest.mark.parametrize("file", ["source.spm", "tokenizer.model", "spiece.model"])
def test_without_sentencepiece_its_vocabularies_are_refused_with_what_to_install(file, tmp_path):
    (tmp_path / file).write_bytes(b"")
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(ValueError, match=f"{file} is a SentencePiece vocabulary.*pip install"):
        opened(tmp_path, tmp_path / "cache", masked=False)


def sentencepiece_model(folder, name, **ids):
    import sentencepiece

    text = folder / "text.txt"
    text.write_text("\n".join(["a good film", "a bad film", "the film was good"] * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "trained"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
        **ids,
    )
    (folder / "trained.model").rename(folder / name)
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / name))


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.skipif(not has_sentencepiece, reason="needs sentencepiece")
def test_marians_ids_are_those_of_its_sentencepiece_model(tmp_path):
    model = sentencepiece_model(tmp_path, "source.spm")
    (tmp_path / "target.spm").write_bytes((tmp_path / "source.spm").read_bytes())
    names = [
        "</s>",
        "<unk>",
        *(model.id_to_piece(i) for i in range(3, model.get_piece_size())),
        "<pad>",
    ]
    (tmp_path / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    settings = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "de"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = opened(tmp_path, tmp_path / "cache", masked=False)
    text = "the film was good"
    expected = [names.index(piece) for piece in model.encode(text, out_type=str)]
    assert ours.encode([text])[0].tolist() == expected
    assert ours.encode_pairs([text], max_length=60)[0][0].tolist() == [*expected, 0]
    assert (ours.sep, ours.pad, ours.vocab_size) == (0, len(names) - 1, len(names))
    assert ours.decode(expected) == text


@pytest.mark.skipif(not has_sentencepiece, reason="needs sentencepiece")
@pytest.mark.parametrize("kind, file", [("T5", "spiece.model"), ("Llama", "tokenizer.model")])
def test_ids_of_t5_and_llama_are_those_of_their_sentencepiece_model(kind, file, tmp_path):
    ids = dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1) if kind == "T5" else dict(model_type="bpe")
    model = sentencepiece_model(tmp_path, file, **ids)
    settings = {"tokenizer_class": f"{kind}Tokenizer"} | ({"extra_ids": 0} if kind == "T5" else {})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = opened(tmp_path, tmp_path / "cache", masked=False)
    text = "the film was good"
    assert ours.encode([text])[0].tolist() == model.encode(text)
    assert ours.sep == model.eos_id()


def test_the_vocabulary_is_the_largest_id_and_one(tmp_path):
    byte_pairs(["<s>", "</s>", "<pad>"]).save(str(tmp_path / "tokenizer.json"))
    rules = json.loads((tmp_path / "tokenizer.json").read_text())
    vocabulary = rules["model"]["vocab"]
    rules["model"]["vocab"] = {k: i if i < 50 else i + 40 for k, i in vocabulary.items()}
    (tmp_path / "tokenizer.json").write_text(json.dumps(rules))
    ours = opened(tmp_path, tmp_path / "cache", masked=False)
    assert ours.vocab_size == len(vocabulary) + 40 > len(ours.fast)
    doubled = wordpiece(tmp_path / "doubled", [*SPECIAL, "the", "film", "the"])
    assert opened(doubled, tmp_path).vocab_size == 8  # ids 0 to 7, and 5 has no token


def test_a_vocabulary_with_holes_can_be_trimmed(tmp_path):
    folder = wordpiece(tmp_path / "t", [*SPECIAL, "the", "film", "the", "good"])
    whole = opened(folder, tmp_path)
    counts = np.bincount(whole.encode(["the film"])[0], minlength=whole.vocab_size)
    smaller, kept = whole.trimmed(counts)
    assert kept.tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert kept[smaller.encode(["the film"])[0]].tolist() == whole.encode(["the film"])[0].tolist()


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        folder_tokenizer(tmp_path / "nowhere")
