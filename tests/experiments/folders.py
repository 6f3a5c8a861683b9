"""Model folders and files as users have them, made on the spot by other libraries."""

import csv
import json
import pathlib

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

GOOD = "good great fine lovely warm bright happy strong".split()
BAD = "bad poor dull awful cold grim weak broken".split()
OTHER = "the a film book day plot song is was very so it and all of this one".split()


def reviews(rows: int) -> list[tuple[str, str]]:
    """Texts whose label one word decides; all of them different."""
    made = []
    for i in range(rows):
        words = (GOOD, BAD)[i % 2]
        middle = [OTHER[(i * k + k) % len(OTHER)] for k in (1, 3, 5, 7)]
        made.append((" ".join([*middle, words[i // 2 % 8], f"no {i}"]), ("pos", "neg")[i % 2]))
    return made


def write_csv(file: pathlib.Path, header: list[str], rows: list[tuple]) -> None:
    with open(file, "w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def write_jsonl(file: pathlib.Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def bert(folder: pathlib.Path, **config: object) -> None:
    """A four-layer BERT without a head, with its WordPiece tokenizer."""
    words = [*GOOD, *BAD, *OTHER, "no", *"0123456789", *(f"##{i}" for i in range(10))]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    torch.manual_seed(0)
    settings = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, **config,
    )  # fmt: skip
    transformers.BertModel(settings).save_pretrained(folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)


def byte_tokenizer(template: str, **tokens: str) -> transformers.PreTrainedTokenizerFast:
    """A byte-level tokenizer that adds <s> (0) and </s> (1) by a template; <pad> is 2.

    Args:
      tokens: more of its special tokens, by their role: mask_token="<mask>".
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<s>", "</s>", "<pad>", *tokens.values()]
    vocabulary = {token: i for i, token in enumerate([*specials, *letters])}
    fast = Tokenizer(models.BPE(vocabulary, []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="<s>", eos_token="</s>", pad_token="<pad>", **tokens
    )


def llama(folder: pathlib.Path) -> None:
    """A four-layer Llama with a byte-level tokenizer."""
    tokenizer = byte_tokenizer("<s> $A")
    torch.manual_seed(0)
    settings = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=256, bos_token_id=0, eos_token_id=1,
        pad_token_id=2,
    )  # fmt: skip
    transformers.LlamaForCausalLM(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def bart(folder: pathlib.Path) -> None:
    """A BART of two encoder and three decoder layers, which begins what it writes with <s>."""
    tokenizer = byte_tokenizer("<s> $A </s>", unk_token="<unk>", mask_token="<mask>")
    torch.manual_seed(0)
    settings = transformers.BartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=3,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64,
        decoder_ffn_dim=64, max_position_embeddings=128, bos_token_id=0, eos_token_id=1,
        pad_token_id=2, decoder_start_token_id=1, forced_bos_token_id=0, forced_eos_token_id=1,
    )  # fmt: skip
    transformers.BartForConditionalGeneration(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
